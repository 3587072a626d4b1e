"""Texts that are longer than a model can read: refused before weights load, by key and length."""

import json

import pytest
import torch

import tif.evaluate as evaluate
from tests.support import architectures, tofu_files
from tif import fit
from tif.config.errors import ConfigError
from tif.config.model import Model
from tif.probes.text_length import check_length, read_context

WITH_TABLES = ("gpt2", "opt", "gptj", "roberta", "mpt", "biogpt", "bart", "ctrl", "codegen")
WITHOUT = ("llama", "mistral", "qwen3_next", "mamba", "bloom", "falcon, ALiBi", "gemma3", "rwkv")


def folder_of(family, path):
    architectures.make_config(family).save_pretrained(path)
    return Model(path=str(path))


def can_read(model, length):
    try:
        with torch.no_grad():
            model(input_ids=torch.arange(length)[None] % 50 + 3, use_cache=False)
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("family", WITH_TABLES)
def test_a_table_of_positions_is_the_longest_text_that_forward_can_read(family, tmp_path):
    model, settings = architectures.build(family), folder_of(family, tmp_path)
    longest = max(length for length in range(120, 135) if can_read(model, length))
    assert longest < 134
    check_length(settings, longest, "a")
    with pytest.raises(ConfigError) as refusal:
        check_length(settings, longest + 1, "s/7")
    assert str(refusal.value) == (
        f"model.path: {tmp_path} reads {longest} tokens at once, the sample s/7 has {longest + 1} "
        "with its answer; want shorter samples or another model"
    )


@pytest.mark.parametrize("family", WITHOUT)
def test_a_model_that_computes_positions_reads_any_text(family, tmp_path):
    assert can_read(architectures.build(family), 140)
    check_length(folder_of(family, tmp_path), 10_000, "a")


@pytest.mark.parametrize(
    "family", ["llama, RoPE longrope", "phi3, RoPE longrope", "llama, RoPE dynamic, long texts"]
)
def test_no_text_may_change_how_others_in_its_batch_are_turned(family, tmp_path):
    settings, model = folder_of(family, tmp_path), architectures.build(family)
    limit = read_context(model.config)
    check_length(settings, limit, "a")
    with pytest.raises(ConfigError, match=f"reads {limit} tokens at once"):
        check_length(settings, limit + 1, "a")
    ids = torch.arange(2 * limit)[None] % 50 + 3  # beyond the limit the first logits change
    with torch.no_grad():
        short, as_long, too_long = (
            model(input_ids=ids[:, :n]).logits[:, :4] for n in (4, limit, limit + 1)
        )
    torch.testing.assert_close(short, as_long, atol=1e-4, rtol=1e-4)
    assert (short - too_long).abs().max() > 1e-3


def test_a_vision_model_has_the_context_of_its_text_part():
    assert read_context(architectures.make_config("gemma3")) == 128
    assert read_context(architectures.make_config("mamba")) is None


@pytest.fixture
def small_gpt2(tokenizer, tmp_path):
    """A folder with a GPT-2 that has 16 positions."""
    tokenizer.save_pretrained(tmp_path)
    model = architectures.build("gpt2, long texts")
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path)
    return tmp_path


def one_line(command, words, capsys):
    assert command.main(words) == 2
    printed = capsys.readouterr()
    assert "loading" not in printed.out
    (line,) = printed.err.splitlines()
    return line


def test_evaluation_refuses_a_text_that_is_too_long_before_weights_load(
    small_gpt2, tmp_path, capsys
):
    for name, rows in tofu_files.FILES.items():
        (tmp_path / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["eval.benchmarks=tofu", f"eval.tofu.path={tmp_path}", "eval.tofu.split=forget01"]
    words = [f"model.path={small_gpt2}", *data, f"out={tmp_path / 'out'}", "device=cpu"]
    assert "reads 16 tokens at once, the sample" in one_line(evaluate, words, capsys)


@pytest.mark.parametrize("words", ["eval.enabled=false", "data.max_tokens=16 eval.enabled=true"])
def test_training_refuses_a_text_that_is_too_long_before_weights_load(
    words, small_gpt2, tmp_path, capsys
):
    words = [f"model.path={small_gpt2}", f"run.folder={tmp_path / 'runs'}",
             "data.benchmark=fictitious", "eval.forget_quality=false", *words.split()]  # fmt: skip
    assert "reads 16 tokens at once, the sample" in one_line(fit, words, capsys)
