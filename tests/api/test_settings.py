"""Keyword arguments are the words of the command line: one configuration, two ways to write it."""

import dataclasses
import pathlib

import pytest

from tif.api import settings
from tif.config import load as config
from tif.config.errors import ConfigError

SAME = [
    ({"optimizer": {"lr": 1e-4}}, ["optimizer.lr=1e-4"]),
    ({"optimizer.lr": 5e-05}, ["optimizer.lr=0.00005"]),
    ({"trainer": {"max_epochs": 3, "gradient_clip_val": None}},
        ["trainer.max_epochs=3", "trainer.gradient_clip_val=null"]),
    ({"model": {"lora": {"rank": 8, "targets": ("q_proj", "v_proj")}}},
        ["model.lora.rank=8", "model.lora.targets=[q_proj,v_proj]"]),
    ({"run": {"folder": pathlib.Path("my runs/1: a")}}, ["run.folder='my runs/1: a'"]),
    ({"run": {"name": "null"}}, ["run.name='null'"]),
    ({"run": {"name": "x_1.b-2"}}, ["run.name=x_1.b-2"]),
    ({"run": {"folder": "1e4"}}, ["run.folder='1e4'"]),
    ({"run.export": False}, ["run.export=false"]),
    ({"data": {"template": 'Q: "{prompt}"\nA: é{answer}'}},
     ['data.template="Q: \\"{prompt}\\"\\nA: é{answer}"']),
    ({"model": {"init": {}}}, ["model.init={}"]),
    ({"eval": {"benchmarks": ["tofu", "lm-eval:mmlu"]}}, ["eval.benchmarks=tofu,lm-eval:mmlu"]),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "words"), SAME, ids=lambda value: str(value)[:40])
def test_a_keyword_argument_is_the_word_of_the_command_line(keys, words):
    expected = config.load(["quickstart.yaml", *words])
    actual = config.load(["quickstart.yaml", *settings.list_words(keys)])
    assert dataclasses.asdict(actual) == dataclasses.asdict(expected)
    if keys != {"model": {"init": {}}}:  # a mapping is merged: {} changes nothing
        assert dataclasses.asdict(actual) != dataclasses.asdict(config.load(["quickstart.yaml"]))


def test_every_value_that_no_configuration_can_hold_is_one_line():
    with pytest.raises(ConfigError) as caught:
        settings.list_words({"optimizer": {"lr": object()}, "run.seed": 1, "data": {"path": print}})
    assert [line.split(",")[0] for line in str(caught.value).splitlines()] == [
        "optimizer.lr: want a text",
        "data.path: want a text",
    ]


def test_an_identifier_is_a_kind_a_list_of_words_or_a_section():
    assert settings.describe_identifier(None) == []
    assert settings.describe_identifier("all") == ["identifier.kind=all"]
    listed = settings.describe_identifier(["Port Lorne", r"re:\d+", "email"])
    expected = {"kind": "words", "words": ["Port Lorne", r"re:\d+"], "patterns": ["email"]}
    assert listed == settings.list_words({"identifier": expected})
    section = {"kind": "random", "random": {"share": 0.5}}
    assert settings.describe_identifier(section) == [
        "identifier.kind=random",
        "identifier.random.share=0.5",
    ]
    with pytest.raises(ConfigError, match="^identifier: want a kind"):
        settings.describe_identifier([1, 2])


def test_a_method_is_a_name_a_file_or_a_term():
    from tif.losses import FORGET

    assert settings.describe_method("npo_gdr") == ["loss/npo_gdr.yaml"]
    assert settings.describe_method("mine/hinge.yaml") == ["mine/hinge.yaml"]
    assert settings.describe_method(FORGET["npo"]) == ["loss.forget=tif.losses.preference:npo"]
    with pytest.raises(ConfigError, match="^method: want a name in configs/loss"):
        settings.describe_method(3)
