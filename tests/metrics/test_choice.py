"""An epoch is chosen on one half of the authors and reported on the other."""

import dataclasses
import math

import numpy as np
import pytest

from tif.metrics import overall
from tif.metrics.choice import choosing_values, split_evaluation, split_groups
from tif.records.types import Evaluation, Record, RecordSet


def answer_questions(authors, shift=0.0, sets=("forget", "retain")):
    """Two questions about each author; losses grow with the number of the question."""
    by_name = {}
    for name in sets:
        records = []
        for i in range(2 * authors):
            loss = 0.1 * (i + 1) + shift
            fields = {"paraphrased_loss": loss, "perturbed_losses": (loss + 0.5, loss + 1.0)}
            group = f"author/{name}{i // 2}"
            records.append(
                Record(f"{name}/{i}", f"{name} {i}?", "A.", loss, 2, **fields, group=group)
            )
        by_name[name] = RecordSet(name, tuple(records))
    return Evaluation("m", by_name)


def test_the_halves_hold_whole_authors_and_each_of_them_once():
    evaluation = answer_questions(5)
    (choosing, _), (reporting, _) = split_evaluation(evaluation, None)
    for name in ("forget", "retain"):
        halves = [set(half.sets[name].groups) for half in (choosing, reporting)]
        assert halves[0].isdisjoint(halves[1])
        assert halves[0] | halves[1] == set(evaluation.sets[name].groups)
        assert [len(half) for half in halves] == [2, 3]
        assert len(choosing.sets[name].records) == 4


def test_the_split_depends_on_the_names_alone_and_is_one_for_all_sets():
    names = [f"author/{i}" for i in range(20)]
    choosing, reporting = split_groups([names, names[:7]])
    assert split_groups([names[::-1]]) == (choosing, reporting)
    assert len(choosing) == len(reporting) == 10
    assert choosing != set(names[:10])  # drawn, not the first ones


def test_records_of_the_retain_model_go_the_same_way_in_whatever_order_they_are():
    ours, theirs = answer_questions(4), answer_questions(4, shift=1.0)
    forget = theirs.sets["forget"]
    turned = dataclasses.replace(forget, records=forget.records[::-1])
    theirs = dataclasses.replace(theirs, sets={**theirs.sets, "forget": turned})
    for half, retain_half in split_evaluation(ours, theirs):
        pairs = zip(half.sets["forget"].records, retain_half.sets["forget"].records, strict=True)
        assert all(a.prompt == b.prompt and b.loss == a.loss + 1 for a, b in pairs)


def test_the_value_that_chooses_is_that_of_its_half_alone():
    ours, theirs = answer_questions(4), answer_questions(4, shift=0.3)
    (half, retain_half), _ = split_evaluation(ours, theirs)
    probability = np.mean([math.exp(-record.loss) for record in half.sets["retain"].records])
    values = choosing_values(ours, theirs, "retain/probability", {})
    assert values == {"choice/retain/probability": pytest.approx(probability)}
    expected = overall.aggregate(half, retain_half)["forget/quality"]
    values = choosing_values(ours, theirs, "forget/quality", {})
    assert values == {"choice/forget/quality": expected}
    assert choosing_values(ours, theirs, "none", {}) == {}


def test_of_one_author_nothing_is_chosen():
    assert split_evaluation(answer_questions(1), None) is None
    assert choosing_values(answer_questions(1), answer_questions(1), "forget/quality", {}) == {}


def test_a_chosen_epoch_is_not_better_than_another_on_the_half_that_reports():
    # Ten epochs that differ by chance alone; 20 authors of 2 questions, whose values are noise.
    generator, chosen, mean = np.random.default_rng(0), [], []
    groups = [f"author/{i // 2}" for i in range(40)]
    choosing, _ = split_groups([groups])
    chooses = np.array([group in choosing for group in groups])
    for _ in range(2000):
        values = generator.normal(size=(10, 40))
        best = values[:, chooses].mean(1).argmax()
        chosen.append(values[best, ~chooses].mean())
        mean.append(values[values.mean(1).argmax()].mean())
    assert np.mean(chosen) == pytest.approx(0, abs=0.02)
    assert np.mean(mean) > 0.2  # chosen and reported on the same questions
