"""Few bits: what rounding does to weights; a model that is exact in few bits stays as it is."""

import dataclasses
import pathlib

import pytest
import torch

from tests.support import attacked
from tif.audit.attacks import quantise
from tif.config.model import Model
from tif.evaluation.model_on_demand import Subject

pytest.importorskip("bitsandbytes")


def subject_of(folder):
    section = Model(path=str(folder))
    return Subject(
        section,
        "Question : {prompt}\nAnswer :",
        torch.device("cpu"),
        "unlearned",
        pathlib.Path(folder),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = attacked.word_tokenizer()
    path = tmp_path_factory.mktemp("quantise")
    attacked.tiny_llama(tokenizer, seed=3).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("bits", ["nf4", "int8"])
def test_rounding_changes_the_layers_and_not_head_embeddings_and_norms(folder, bits):
    subject = subject_of(folder)
    rounded = quantise.load_rounded(subject, bits).state_dict()
    changed = {
        name
        for name, value in subject.model.state_dict().items()
        if not torch.equal(value, rounded[name])
    }
    layers = {name for name in rounded if "proj" in name}
    assert changed == layers


def test_int8_is_the_nearest_of_255_steps_of_each_row(folder):
    subject = subject_of(folder)
    name = "model.layers.0.mlp.up_proj.weight"
    weight = subject.model.state_dict()[name]
    step = weight.abs().amax(1, keepdim=True) / 127
    actual = quantise.load_rounded(subject, "int8").state_dict()[name]
    assert ((actual - weight).abs() / step).max() < 0.55  # half a step; the scale is float16
    assert ((actual / step) - (actual / step).round()).abs().max() < 0.1


@pytest.mark.parametrize("bits", ["nf4", "int8"])
def test_a_model_that_is_exact_in_few_bits_does_not_change(folder, tmp_path, bits):
    first = quantise.load_rounded(subject_of(folder), bits)
    for _ in range(8):  # rounding of double-quantised scales settles
        first.save_pretrained(tmp_path)
        attacked.word_tokenizer().save_pretrained(tmp_path)
        second = quantise.load_rounded(subject_of(tmp_path), bits)
        if all(
            torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
        ):
            break
        first = second
    inputs = attacked.inputs()
    inputs.settings.quantise.bits = [bits]
    samples = [
        dataclasses.replace(s, perturbed_answers=("Ann was born in Oslo .",))
        for s in attacked.SAMPLES
    ]
    inputs = dataclasses.replace(
        inputs,
        benchmark=dataclasses.replace(
            inputs.benchmark, forget=tuple(samples), sets={"forget": tuple(samples)}
        ),
    )
    outcome = quantise.run(subject_of(tmp_path), inputs)
    for title in ("facts stated", "extraction strength", "probability", "ROUGE-L"):
        before, after = outcome.measures[f"as it is, {title}"], outcome.measures[f"{bits}, {title}"]
        assert after == pytest.approx(before, abs=1e-6)
    same = {"target": outcome, "unlearned": outcome, "retain": outcome}
    qualities = quantise.compare_forget_quality(same)
    assert qualities[f"{bits}, forget/quality"] == {"target": 1.0, "unlearned": 1.0}
