"""Membership attacks against scores that plain forwards give, and scikit-learn's AUC."""

import dataclasses

import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.support import attacked
from tif.audit.attacks import membership
from tif.config.errors import ConfigError

HOLDOUT = (
    attacked.sample(7, "where is Ann ?", "Ann was born in Oslo .", "Oslo"),
    attacked.sample(8, "where is Bob ?", "Bob is in Rome .", "Rome"),
    attacked.sample(9, "who is Bob ?", "Bob is Ann .", "Ann"),
)


@pytest.fixture(scope="module")
def subjects():
    tokenizer = attacked.word_tokenizer()
    roles = ("target", "unlearned", "retain")
    models = {role: attacked.tiny_llama(tokenizer, seed) for seed, role in enumerate(roles)}
    with torch.no_grad():
        for model in models.values():
            for weight in model.parameters():
                weight.mul_(4)
    return {role: attacked.subject(model, role=role) for role, model in models.items()}


@pytest.fixture(scope="module")
def inputs(subjects):
    plain = attacked.inputs()
    benchmark = dataclasses.replace(plain.benchmark, holdout=HOLDOUT)
    return dataclasses.replace(plain, benchmark=benchmark, subjects=subjects)


def plain_loss(subject, sample):
    """Return the mean cross-entropy of the answer and its end token, from one plain forward."""
    prompt = subject.encoder.encode_text(f"Question : {sample.prompt}\nAnswer :")
    ids = [*subject.encoder.encode_text(f"Question : {sample.prompt}\nAnswer : {sample.answer}"), 0]
    with torch.no_grad():
        logits = subject.model(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[len(prompt) :])).item()


def test_the_auc_of_the_loss_is_that_of_plain_forwards(subjects, inputs):
    subject = subjects["unlearned"]
    outcome = membership.run(subject, inputs)
    samples = [*attacked.SAMPLES, *HOLDOUT]
    losses = [plain_loss(subject, sample) for sample in samples]
    expected = roc_auc_score([1, 1, 0, 0, 0], [-loss for loss in losses])
    values = outcome.measures["AUC of loss"]
    assert sum(values) / len(values) == pytest.approx(expected)
    differences = [
        loss - plain_loss(subjects["retain"], sample)
        for loss, sample in zip(losses, samples, strict=True)
    ]
    values = outcome.measures["AUC of reference"]
    assert sum(values) / len(values) == pytest.approx(
        roc_auc_score([1, 1, 0, 0, 0], [-d for d in differences])
    )


def test_there_are_six_attacks_and_privleak_compares_with_the_retain_model(subjects, inputs):
    outcome = membership.run(subjects["unlearned"], inputs)
    assert len(outcome.measures) == 6
    retain = membership.run(subjects["retain"], inputs)
    away, retain_away = (
        1 - sum(o.measures["AUC of min_k"]) / len(attacked.SAMPLES) for o in (outcome, retain)
    )
    assert outcome.numbers["PrivLeak"] == pytest.approx(100 * (away - retain_away) / retain_away)
    assert retain.numbers["PrivLeak"] == 0
    assert retain.measures["AUC of reference"] == [0.5, 0.5]


def test_a_benchmark_without_holdout_samples_is_refused():
    with pytest.raises(
        ConfigError, match=r"membership wants holdout samples .* want data\.holdout=holdout10"
    ):
        membership.check(attacked.inputs())
