"""The unit of the intervals: whole authors, from the records alone."""

import itertools
import json
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

from tif.metrics.results import NumbersRequest, compute_results, count_groups, named_intervals
from tif.records.files import read_evaluation, write_evaluation
from tif.records.types import Evaluation, Record, RecordSet

LEVELS = {0: 0.2, 1: 0.6, 2: 0.7}  # probability of every answer about an author


def evaluate_authors(**changes):
    """Three authors of TOFU with twenty questions each, which the model knows alike."""
    records = []
    for i in range(60):
        loss = -math.log(LEVELS[i // 20])
        fields = {"loss": loss, "tokens": 2, "paraphrased_loss": loss, "perturbed_losses": (1.0,)}
        records.append(Record(f"tofu/{i}", f"Q{i}?", f"A{i}.", **fields | changes))
    return Evaluation("m", {"forget": RecordSet("forget", tuple(records))})


def read_again(folder, evaluation):
    write_evaluation(folder, evaluation, {})
    return read_evaluation(folder)


def test_records_of_an_older_run_are_drawn_by_author(tmp_path):
    # Authors' means 0.2, 0.6, 0.7: mean 0.5, variance 0.07 over 3 authors.
    half = scipy.stats.t.ppf(0.975, 2) * math.sqrt(0.07 / 3) / 0.25
    low, high = named_intervals(read_again(tmp_path, evaluate_authors()), None, {})[
        "forget/probability"
    ]
    assert (low, high) == pytest.approx((scipy.special.expit(-half), scipy.special.expit(half)))
    stored = json.loads((tmp_path / "forget.json").read_text())["records"]
    assert "group" not in stored["tofu/0"]  # as written before


def test_results_say_how_many_of_which_unit_they_are_over(tmp_path):
    evaluation = read_again(tmp_path, evaluate_authors())
    controls = RecordSet("world_facts", (Record("world_facts/0", "Q?", "A.", 1.0, 2),))
    documents = RecordSet("privleak_forget", (Record("privleak_forget/0", "", "A.", 1.0, 2),))
    sets = {**evaluation.sets, "world_facts": controls, "privleak_forget": documents}
    assert count_groups(Evaluation("m", sets)) == {
        "forget": {"author": 3}, "world_facts": {"question": 1}, "privleak_forget": {"document": 1},
    }  # fmt: skip
    results = compute_results(NumbersRequest(evaluation, None, "", ""))
    assert results["groups"] == {"forget": {"author": 3}}


def test_forget_quality_is_drawn_by_author_and_stays_the_benchmarks_test(tmp_path):
    ours = read_again(tmp_path / "a", evaluate_authors())
    theirs = read_again(tmp_path / "b", evaluate_authors(perturbed_losses=(1.2,)))
    results = compute_results(NumbersRequest(ours, theirs, "", "", draws=200))
    ratios = [np.repeat([1 / p for p in LEVELS.values()], 20) * math.exp(-w) for w in (1.0, 1.2)]
    assert results["forget_quality"] == pytest.approx(scipy.stats.ks_2samp(*ratios).pvalue)
    possible = set()
    for authors in itertools.product(range(3), repeat=3):  # all draws of three authors of three
        rows = np.concatenate([np.arange(20) + 20 * author for author in authors])
        possible.add(scipy.stats.ks_2samp(*(side[rows] for side in ratios)).pvalue)
    for end in results["intervals"]["forget_quality"]:
        assert any(end == pytest.approx(value, rel=1e-6) for value in possible)
