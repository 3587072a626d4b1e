"""Names and shapes in the headers of weight files against those that a model needs."""

import pathlib

import pytest
import safetensors.torch
import torch
import transformers

from tests.support import architectures
from tif.models.headers import check_headers, read_shapes

SMALL = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 30}


def on_meta(config):
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


def write(folder, weights):
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture
def llama():
    """Return a Llama whose head is its embedding, and its weights as they are stored."""
    config = transformers.LlamaConfig(**SMALL, intermediate_size=12, tie_word_embeddings=True)
    weights = transformers.AutoModelForCausalLM.from_config(config).state_dict()
    del weights["lm_head.weight"]
    return on_meta(config), weights


def test_shapes_are_read_and_no_weights(tmp_path):
    write(tmp_path, {"a": torch.zeros(2, 3), "b": torch.zeros(4)})
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-16] + b"\xff" * 16)
    assert read_shapes(tmp_path) == {"a": (2, 3), "b": (4,)}


def test_a_head_that_is_tied_to_the_embedding_is_stored_once(llama, tmp_path):
    model, weights = llama
    write(tmp_path, weights)
    check_headers(model, tmp_path)
    embedding = weights.pop("model.embed_tokens.weight")
    write(tmp_path, weights)
    with pytest.raises(ValueError, match="lack 1 weights, as model.embed_tokens.weight"):
        check_headers(model, tmp_path)
    write(tmp_path, weights | {"lm_head.weight": embedding})
    check_headers(model, tmp_path)


def test_names_may_lack_the_prefix_of_the_class(llama, tmp_path):
    model, weights = llama
    bare = {name.removeprefix("model."): weight for name, weight in weights.items()}
    write(tmp_path, bare)
    check_headers(model, tmp_path)
    write(tmp_path, bare | {"norm.weight": torch.zeros(9)})
    with pytest.raises(ValueError, match=r"model.norm.weight is \[9\] in its files and \[8\] by"):
        check_headers(model, tmp_path)


def test_what_a_model_does_not_need_may_stand_in_its_files(llama, tmp_path):
    model, weights = llama
    write(tmp_path, weights | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(2)})
    check_headers(model, tmp_path)


def test_numbers_of_another_part_replace_no_weight(llama, tmp_path):
    model, weights = llama
    del weights["model.norm.weight"]
    write(tmp_path, weights | {"value_head.weight": torch.zeros(100)})
    with pytest.raises(ValueError, match="lack 1 weights, as model.norm.weight"):
        check_headers(model, tmp_path)


@pytest.mark.parametrize("family", ["mixtral", "gemma3", "ergo"])
def test_a_form_of_storage_that_transformers_renames_passes_where_no_number_is_missing(
    family, tmp_path
):
    model = architectures.build(family)
    model.save_pretrained(tmp_path)
    renamed = read_shapes(tmp_path).keys() - model.state_dict().keys()
    assert renamed, "this family is stored as it computes: want another"
    check_headers(on_meta(model.config), tmp_path)


def test_an_expert_that_is_missing_is_noticed(tmp_path):
    model = architectures.build("mixtral")
    model.save_pretrained(tmp_path)
    weights = safetensors.torch.load_file(pathlib.Path(tmp_path) / "model.safetensors")
    del weights[max(name for name in weights if "experts" in name)]
    write(tmp_path, weights)
    with pytest.raises(ValueError, match=r"its files lack \d+ weights, as model.layers"):
        check_headers(on_meta(model.config), tmp_path)
