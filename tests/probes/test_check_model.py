"""Sizes of `model.init` that make no model: one line each, before any memory is taken."""

import pytest
import torch

from tests.support.hangs import no_hang
from tests.support.small_run import SMALL
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.config.model import Model
from tif.probes.check_model import check_model

LLAMA = {
    "vocab_size": 500, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128,
}  # fmt: skip
WRONG = [
    ("hidden_size", 10**9, "GB of weights, and this machine has"),
    ("hidden_size", -8, "hidden_size is -8; want at least 1"),
    ("hidden_size", 0, "hidden_size is 0; want at least 1"),
    ("hidden_size", 10**400, "no Llama"),
    ("hidden_size", float("nan"), "no Llama"),
    ("hidden_size", "many", "no Llama"),
    ("hidden_size", [1], "no Llama"),
    ("num_hidden_layers", 10**9, "num_hidden_layers is 1000000000; want at most 1000"),
    ("num_hidden_layers", 0, "num_hidden_layers is 0; want at least 1"),
    ("vocab_size", 10**10, "GB of weights"),
    ("vocab_size", -5, "vocab_size is -5; want at least 1"),
    ("num_attention_heads", 10**9, "no Llama"),
    ("num_attention_heads", 0, "num_attention_heads is 0; want at least 1"),
    ("num_key_value_heads", 3, "in groups of num_key_value_heads"),
    ("num_key_value_heads", 0, "num_key_value_heads is 0; want at least 1"),
    ("intermediate_size", 10**15, "GB of weights"),
    ("intermediate_size", 0, "intermediate_size is 0; want at least 1"),
    ("max_position_embeddings", 0, "max_position_embeddings is 0; want at least 1"),
    ("head_dim", 7, "no Llama"),
    ("head_dim", 10**10, "GB of weights"),
    ("hidden_act", "none of these", "no Llama"),
    ("auto_map", {"AutoConfig": "a.b"}, "LlamaConfig has no auto_map"),
]


@pytest.mark.parametrize(("name", "value", "reason"), WRONG)
def test_sizes_of_which_no_model_can_be_made_are_refused_at_once(name, value, reason, monkeypatch):
    modules, make_module = [], torch.nn.Module.__init__

    def note(module, *arguments, **keys):
        modules.append(type(module))
        make_module(module, *arguments, **keys)

    monkeypatch.setattr(torch.nn.Module, "__init__", note)
    with pytest.raises(ConfigError) as caught, no_hang():
        check_model(Model(init=LLAMA | {name: value}))
    assert len(modules) < 100  # a Llama of two layers has fifty
    (line,) = str(caught.value).splitlines()
    assert line.startswith("model.init: ")
    assert reason in line


TINY = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("init", "family"),
    [
        (
            {
                "model_type": "qwen3",
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 8,
            },
            "qwen3",
        ),
        ({"model_type": "mamba", "state_size": 4, "num_attention_heads": None}, "mamba"),
    ],
)
def test_a_new_model_can_be_of_any_architecture(init, family):
    assert check_model(Model(init=TINY | init)) == family


@pytest.mark.parametrize(
    ("init", "line"),
    [
        (
            {"model_type": "no-such-type"},
            "model.init: model_type is 'no-such-type'; want a causal LM that",
        ),
        (
            {"model_type": "distilbert"},
            "model.init: model_type is 'distilbert'; want a causal LM that",
        ),
        ({"model_type": "qwen3", "hiden_size": 8}, "model.init: Qwen3Config has no hiden_size"),
        (
            {"model_type": "qwen3", "hidden_act": "none of these"},
            "model.init: no Qwen3 can be made of it",
        ),
    ],
)
def test_an_architecture_of_which_no_model_can_be_made_is_refused_in_one_line(init, line):
    with pytest.raises(ConfigError) as caught:
        check_model(Model(init=TINY | init))
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_sizes_of_which_one_can_be_made_pass():
    assert check_model(Model(init=LLAMA)) == "llama"


@pytest.mark.parametrize(
    "number", ["1" + "0" * 400, "-1" + "0" * 400, "0x" + "f" * 5000, "1.0e400", ".nan", "-.inf"]
)
def test_numbers_beyond_all_bounds_are_refused_by_key(number):
    problems = {}
    for key in ("data.batch_size", "optimizer.lr", "trainer.max_epochs", "loss.beta", "run.seed",
                "model.lora.alpha", "eval.max_samples.retain", "data.fictitious.authors",
                "model.init.hidden_size"):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            config.load(["quickstart.yaml", *SMALL, f"{key}={number}"])
        problems[key] = str(caught.value).splitlines()
    for key, lines in problems.items():
        assert all(len(line) < 400 for line in lines)
        section = key.rpartition(".")[0]
        assert any(line.startswith((key, section)) for line in lines), lines
