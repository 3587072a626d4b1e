"""Relearning: what is learned and measured, the training against a plain loop, areas by hand."""

import copy

import pytest
import torch

from tests.support import attacked
from tif.audit.attacks import relearn
from tif.audit.attacks.relearn import Relearn
from tif.evaluation.questions import EvaluationSetup

NAMES = ("Ann", "Bob", "Rome", "Oslo", "yes", "no", "red", "blue")
QUESTIONS = tuple(
    attacked.sample(
        i, f"where is {name} ?", f"{name} was born in {NAMES[(i + 3) % 8]} .", NAMES[(i + 3) % 8]
    )
    for i, name in enumerate(NAMES)
)
RETAIN = (attacked.sample(20, "who is Ann ?", "Ann was red .", "red"),)


def inputs(**keys):
    prepared = attacked.inputs(QUESTIONS, RETAIN)
    prepared.settings.relearn = Relearn(
        **{"shares": [0.25, 0.5], "others": ["retain"], "steps": 4, "lr": 0.01} | keys
    )
    return prepared


@pytest.fixture(scope="module")
def model():
    return attacked.tiny_llama(attacked.word_tokenizer(), seed=1)


def test_smaller_shares_lie_in_larger_ones_and_nothing_learned_is_measured():
    lessons, others = relearn.plan_lessons(inputs())
    quarter, half = lessons["25 % of the forget set"], lessons["50 % of the forget set"]
    assert (len(quarter), len(half), len(others)) == (2, 4, 4)
    assert set(quarter) < set(half)
    assert {s.id for s in half} | {s.id for s in others} == {s.id for s in QUESTIONS}
    assert lessons["retain"] == RETAIN
    other_seed = inputs()
    other_seed.settings.seed = 1
    assert relearn.plan_lessons(other_seed)[0]["50 % of the forget set"] != half


def test_each_step_takes_the_next_samples_of_a_new_order_each_time():
    batches = relearn.draw_batches(3, Relearn(steps=6, batch_size=2), seed=0)
    assert [len(batch) for batch in batches] == [2] * 6
    stream = sum(batches, [])
    assert [sorted(stream[i : i + 3]) for i in range(0, 12, 3)] == [[0, 1, 2]] * 4
    assert relearn.draw_batches(3, Relearn(steps=4, batch_size=8), 0)[0] != []  # all of fewer


def test_the_training_is_that_of_a_plain_loop(model):
    subject, settings = attacked.subject(model), inputs().settings.relearn
    setup = EvaluationSetup(subject.encoder, inputs().settings.eval, "packed")
    expected = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(expected.parameters(), lr=0.01, weight_decay=0)
    for indices in relearn.draw_batches(4, settings, seed=0):
        loss, tokens = 0, 0
        for i in indices:
            encoded = subject.encoder.encode(QUESTIONS[i])
            ids = torch.tensor(encoded.input_ids)
            labels = torch.where(torch.tensor(encoded.uw) | torch.tensor(encoded.gw), ids, -100)
            count = int((labels != -100).sum())
            loss = loss + expected(input_ids=ids[None], labels=labels[None]).loss * count
            tokens += count
        optimizer.zero_grad()
        (loss / tokens).backward()
        torch.nn.utils.clip_grad_norm_(expected.parameters(), 1.0)
        optimizer.step()
    before = copy.deepcopy(model.state_dict())
    steps = [(step, net) for step, net in relearn.learn(model, QUESTIONS[:4], setup, settings, 0)]
    assert [step for step, _ in steps] == [1, 2, 3, 4]
    for actual, wanted in zip(steps[-1][1].parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(
            actual, wanted, rtol=0, atol=2e-4
        )  # of 0.04 that four steps move
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_an_area_is_the_mean_height_of_the_curve():
    columns = {0: [0.0, None, 1.0], 1: [1.0, 1.0, 1.0], 4: [1.0, 1.0, 1.0]}
    assert relearn.area_of_curves(columns) == [(0.5 * 1 + 1 * 3) / 4, None, 1.0]
    assert relearn.mean_curve(columns) == [(0.0, 0.5), (1.0, 1.0), (4.0, 1.0)]


def test_what_is_learned_comes_back_and_the_same_model_gives_the_same_curve(model):
    same = (inputs(steps=40), inputs(steps=40))
    first, second = (relearn.run(attacked.subject(model), attack_inputs) for attack_inputs in same)
    assert first == second  # so the leak of a retain model against itself is 0
    curve = first.curves["50 % of the forget set, probability"]
    assert [x for x, _ in curve] == [0, 10, 20, 40]
    assert max(y for _, y in curve) > 1.5 * curve[0][1]  # the others' form is learned from the half
    assert set(first.measures) == {
        f"{lesson}, {measure}"
        for lesson in ("25 % of the forget set", "50 % of the forget set", "retain")
        for measure in ("facts stated", "extraction strength", "probability", "ROUGE-L")
    }
