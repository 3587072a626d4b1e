"""A model of others: its code, pickles, index and pipes are refused, each with one line."""

import io
import json
import os
import pathlib
import shutil
import sys

import huggingface_hub
import pytest
import safetensors.torch
import torch
import transformers

from tests.support import language_models, tiny_models
from tests.support.model_weights import assert_bit_identical
from tif.config.errors import ConfigError
from tif.config.model import Model
from tif.evaluation import fluency_classifier
from tif.identifiers.language_models import check_language_model
from tif.models import load as models
from tif.models import pretrained
from tif.models.pretrained import Source
from tif.probes.check_model import check_model
from tif.utils import hub

KINDS = tuple(pretrained.AUTO_CLASSES)


class Yes(io.StringIO):
    """A terminal on which somebody always says yes, as `yes |`."""

    def readline(self, *_):
        return "y\n"


@pytest.fixture
def spy(tmp_path, monkeypatch):
    """Write a model whose code leaves a file; return its folder and a check whether it ran."""
    folder, trace = tmp_path / "spy", tmp_path / "it-ran"
    folder.mkdir()
    code = f"open({str(trace)!r}, 'w')\nclass Spy:\n    pass\n"
    (folder / "spy.py").write_text(code)
    names = ("AutoConfig", "AutoModel", *pretrained.AUTO_CLASSES.values())
    config = {"model_type": "spy", "auto_map": {name: "spy.Spy" for name in names}}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {"tokenizer_class": "Spy", "auto_map": {"AutoTokenizer": ["spy.Spy", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    monkeypatch.setattr(sys, "stdin", Yes())
    return folder, trace.exists


def message(call, *args, **keys):
    """Return the only line of the ConfigError of a call."""
    with pytest.raises(ConfigError) as caught:
        call(*args, **keys)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("kind", KINDS)
def test_code_that_comes_with_a_model_does_not_run_though_yes_is_on_the_terminal(spy, kind):
    folder, has_run = spy
    for load in (pretrained.check_model, pretrained.load_model):
        line = message(load, Source(str(folder), "some.key"), kind)
        assert line.startswith(f"some.key: {folder} is no model that can be loaded as a {kind}")
        assert "it comes with code of its own, which is not run; want a model whose classes" in line
    assert not has_run()


def test_the_policys_code_runs_only_where_the_key_allows_it(spy):
    folder, has_run = spy
    assert "read it, then give model.trust_remote_code=true" in message(
        check_model, Model(path=str(folder))
    )
    assert not has_run()
    message(check_model, Model(path=str(folder), trust_remote_code=True))  # Spy is no config
    assert has_run()


def test_a_kernel_of_the_hub_that_a_config_names_is_refused(llama, tmp_path):
    """transformers would fetch it and run its code."""
    folder = shutil.copytree(llama, tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    content["attn_implementation"] = "evil/kernel"
    (folder / "config.json").write_text(json.dumps(content))
    line = message(pretrained.check_model, Source(str(folder), "some.key"), "causal LM")
    assert (
        "(its config.json names the kernel evil/kernel, whose code would run; delete the line)"
        in line
    )
    assert "some.key" in message(
        pretrained.load_model, Source(str(folder), "some.key"), "causal LM"
    )


def test_no_kernel_of_the_hub_is_put_into_a_model(llama):
    """transformers 5.25 does it by itself."""
    source = Source(str(llama), "some.key")
    assert not getattr(pretrained.load_model(source, "causal LM"), "use_kernels", False)


def test_the_code_of_a_tokenizer_does_not_run_either(spy):
    folder, has_run = spy
    (folder / "config.json").unlink()
    assert "it comes with code of its own" in message(
        pretrained.load_tokenizer, Source(str(folder), "tokenizer")
    )
    assert not has_run()


def test_a_tokenizer_class_that_leads_to_another_loader_runs_nothing(spy):
    # AutoTokenizer loads any class of transformers by name, without `trust_remote_code`.
    folder, has_run = spy
    for name in ("AutoModelForCausalLM", "AutoConfig", "AutoProcessor"):
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
        message(pretrained.load_tokenizer, Source(str(folder), "tokenizer"))
        assert not has_run()


def test_identifiers_and_the_classifier_refuse_a_model_with_code(spy):
    folder, has_run = spy
    key = "identifier.masked_lm.model"
    assert message(check_language_model, Source(str(folder), key), "masked LM").startswith(
        f"{key}: {folder} is no"
    )
    line = message(fluency_classifier.check_classifier, str(folder))
    assert line.startswith(
        f"fluency.classifier: {folder} is no model that can be loaded as a classifier"
    )
    assert not has_run()


@pytest.fixture
def model(llama, tmp_path):
    """Return a copy of a whole model's folder."""
    return shutil.copytree(llama, tmp_path / "m")


def test_pickled_weights_are_refused_with_the_way_to_convert_them(model):
    weights = safetensors.torch.load_file(model / "model.safetensors")
    torch.save(weights, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    line = message(check_model, Model(path=str(model)))
    assert line == (
        f"model.path: {model} holds pickled weights only (pytorch_model.bin), which could run "
        "code; want *.safetensors: transformers' "
        "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER) makes them"
    )
    # What the line says helps.
    transformers.AutoModelForCausalLM.from_pretrained(model).save_pretrained(model)
    assert check_model(Model(path=str(model))) == "llama"


def in_two_shards(model):
    """Write the weights in two files and an index."""
    weights = safetensors.torch.load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names, places = sorted(weights), {}
    for number, part in enumerate((names[:3], names[3:]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        safetensors.torch.save_file(
            {name: weights[name] for name in part}, model / file, {"format": "pt"}
        )
        places |= dict.fromkeys(part, file)
    (model / pretrained.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


def test_shards_load_and_a_lost_one_is_named(model):
    in_two_shards(model)
    assert check_model(Model(path=str(model))) == "llama"
    (model / "model-00002-of-00002.safetensors").unlink()
    line = message(check_model, Model(path=str(model)))
    assert (
        "lacks model-00002-of-00002.safetensors, which its model.safetensors.index.json names"
        in line
    )


@pytest.mark.parametrize(
    "content", ["", "[]", '{"weight_map": 3}', '{"weight_map": {"a": ["b"]}}', "\0"]
)
def test_an_index_that_is_none_is_one_line(model, content):
    in_two_shards(model)
    (model / pretrained.INDEX).write_text(content)
    assert f"holds a damaged {pretrained.INDEX}" in message(check_model, Model(path=str(model)))


def test_an_index_names_no_files_of_other_folders(model):
    places = in_two_shards(model)
    name = "model-00002-of-00002.safetensors"
    shutil.move(model / name, model.parent / name)
    moved = {weight: file.replace(name, f"../{name}") for weight, file in places.items()}
    (model / pretrained.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": moved}))
    assert f"lacks ../{name}" in message(check_model, Model(path=str(model)))


def rewrite(model, change):
    """Change the weights of a model's file."""
    weights = safetensors.torch.load_file(model / "model.safetensors")
    change(weights)
    safetensors.torch.save_file(weights, model / "model.safetensors", {"format": "pt"})


def test_a_model_that_lacks_weights_is_refused_and_gets_no_random_ones(model):
    rewrite(model, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    for load in (check_model, models.load_pretrained):
        line = message(load, Model(path=str(model)))
        assert "its files lack 1 weights, as model.layers.1.mlp.up_proj.weight" in line


def test_weights_of_other_shapes_are_refused(model):
    rewrite(model, lambda weights: weights.update({"model.norm.weight": torch.ones(5)}))
    line = message(check_model, Model(path=str(model)))
    assert "the weight model.norm.weight is [5] in its files and [16] by its config.json" in line


def test_safetensors_of_something_else_are_no_model(model):
    safetensors.torch.save_file(
        {"picture": torch.ones(5)}, model / "model.safetensors", {"format": "pt"}
    )
    assert "its files lack " in message(check_model, Model(path=str(model)))


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}"])
def test_weights_that_are_no_safetensors_are_one_line(model, content):
    (model / "model.safetensors").write_bytes(content)
    assert message(check_model, Model(path=str(model))).startswith(
        f"model.path: {model} is no model"
    )


def test_a_classifier_without_a_head_is_refused(trained_bert, tmp_path):
    line = message(fluency_classifier.check_classifier, trained_bert)
    assert "weights, as bert.pooler.dense.bias" in line  # else transformers makes a random one
    head = shutil.copytree(trained_bert, tmp_path / "with_head")
    transformers.AutoModelForSequenceClassification.from_pretrained(trained_bert).save_pretrained(
        head
    )
    fluency_classifier.check_classifier(str(head))


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"]
)
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/proc/kmsg"])
def test_a_pipe_or_a_device_in_a_models_folder_is_refused_at_once(model, name, kind):
    (model / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(model / name)
    else:
        (model / name).symlink_to(kind)
    for load in (check_model, lambda section: models.load_tokenizer(section, ())):
        line = message(load, Model(path=str(model)))
        assert (
            line == f"model.path: {model}: {name} in it is a pipe or a device; want regular files"
        )


@pytest.mark.parametrize(
    "path", ["/dev/zero", "/proc/kmsg", "a\0b", "~nobody-here/m", "x" * 5000, "a/b/c", "../m\nn"]
)
def test_a_path_that_is_no_folder_is_refused_at_once(path):
    with pytest.raises(ConfigError, match="no folder"):
        pretrained.check_model(Source(path, "model.path"), "causal LM")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; want at most 1000"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1; want at least 1"),
        ({"num_hidden_layers": 1}, "hold more layers than its config.json says: model.layers.1."),
        ({"hidden_size": 10**9}, "by its config.json"),
        ({"hidden_size": -8}, ""),
        ({"hidden_size": 10**400}, ""),
        ({"vocab_size": 10**9}, "by its config.json"),
        ({"num_attention_heads": 0}, ""),
    ],
)
def test_a_config_of_absurd_sizes_is_one_line(model, keys, reason):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | keys))
    assert reason in message(check_model, Model(path=str(model)))


def test_the_checks_of_a_real_model_pass(smollm2):
    assert check_model(Model(path=str(smollm2))) == "llama"


def test_masked_lms_with_tied_heads_pass(tmp_path):
    folder = language_models.bert(tmp_path / "b")
    check_language_model(Source(folder, "key"), "masked LM")
    assert pathlib.Path(folder).is_dir()


def test_without_network_a_hub_name_that_is_not_in_the_cache_is_refused_at_once(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    line = message(pretrained.read_config, Source("org/absent", "model.path"))
    assert line.startswith(
        f"model.path: org/absent is no folder here and not in {tmp_path}, and HF_HUB_OFFLINE is "
    )
    assert line.endswith("where there is a network: tif download model org/absent")


def test_without_network_a_hub_name_is_its_download_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--org--tiny" / "snapshots" / "0123456789abcdef"
    tiny_models.model().save_pretrained(snapshot)
    (tmp_path / "models--org--tiny" / "refs").mkdir()
    (tmp_path / "models--org--tiny" / "refs" / "main").write_text(snapshot.name)
    loaded = pretrained.load_model(Source("org/tiny", "model.path"), "causal LM")
    assert_bit_identical(loaded.state_dict(), tiny_models.model().state_dict())


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch):
    calls = []

    class Session:
        def head(self, address, timeout):
            calls.append((address, timeout))
            raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    hub.is_hub_reachable.cache_clear()
    assert [hub.is_hub_reachable() for _ in range(2)] == [False, False]
    assert calls == [(huggingface_hub.constants.ENDPOINT, 2)]
    hub.is_hub_reachable.cache_clear()
