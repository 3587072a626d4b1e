"""OpenUnlearning's summary: by hand, and from its own logs."""

from pathlib import Path

import pytest

from tif.metrics import open_unlearning, overall
from tif.records.files import read_evaluation

LOGS = Path("/work/shared/data/ou_logs")
PARTS = {
    "forget/extraction_strength": 0.5, "forget/exact_memorization": 0.5,
    "forget/paraphrased_probability": 0.0, "forget/truth_ratio_probability": 0.5,
}  # fmt: skip


def auc(*values):
    names = [f"membership/{name}" for name in open_unlearning.ATTACKS]
    return dict(zip(names, values, strict=True))


def test_memorization_by_hand():
    assert open_unlearning.memorization_score(PARTS) == pytest.approx(4 / (2 + 2 + 1 + 2))
    known = PARTS | {"forget/exact_memorization": 1.0}
    assert open_unlearning.memorization_score(known) == 0
    missing = PARTS | {"forget/paraphrased_probability": None}
    assert open_unlearning.memorization_score(missing) is None


def test_privacy_by_hand():
    before, retain = auc(1.0, 1.0, 1.0, 0.9), auc(0.5, 0.5, 0.5, 0.4)
    # 0.75 is halfway, 0.25 as far below; 1 - 0.1 / 0.5 = 0.8; the retain model's own = 1
    ours = auc(0.75, 0.25, 0.6, 0.4)
    score = open_unlearning.privacy_score(ours, before, retain)
    assert score == pytest.approx(4 / (2 + 2 + 1.25 + 1))
    assert open_unlearning.privacy_score(retain, before, retain) == 1
    assert open_unlearning.privacy_score(before, before, retain) == 0
    assert open_unlearning.privacy_score(ours, {}, retain) is None
    assert open_unlearning.privacy_score(ours, before, before) is None  # nothing to be nearer to


def test_utility_and_the_whole_by_hand():
    values = {"utility/model": 0.6, "forget/readable": 0.3}
    assert open_unlearning.utility_score(values) == pytest.approx(0.4)
    aucs = auc(*[0.6] * 4), auc(*[1.0] * 4), auc(*[0.5] * 4)
    scores = open_unlearning.summarize(PARTS | values | aucs[0], *aucs[1:])
    expected = 3 / (7 / 4 + 1 / 0.8 + 1 / 0.4)
    assert scores["summary/all"] == pytest.approx(expected)
    assert "summary/all" not in open_unlearning.summarize(PARTS | values, {}, {})


@pytest.mark.real
@pytest.mark.skipif(not LOGS.exists(), reason=f"{LOGS} is missing")
def test_the_scores_of_open_unlearnings_own_models_are_those_published_elsewhere():
    """gnueaj/unlearning-depth-score docs/data/method_results.json, evaluated anew: 0.103 and 0.582.

    Its 1 - extraction strength of the retain model is 0.94103, of the log 0.94104; its target model
    is another evaluation (0.68 extracted, the log has 0.71), hence the wide bound there.
    """
    name = "Llama-3.2-1B-Instruct__{}.json"
    target, retain = (read_evaluation(LOGS / name.format(model))
                      for model in ("full_forget10", "retain90"))  # fmt: skip
    before, theirs = overall.aggregate(target, retain), overall.aggregate(retain)
    assert theirs["summary/memorization"] == pytest.approx(0.5822, abs=0.005)
    assert before["summary/memorization"] == pytest.approx(0.1033, abs=0.02)
    assert open_unlearning.privacy_score(theirs, before, theirs) == 1
    assert open_unlearning.privacy_score(before, before, theirs) == 0
    assert before["utility/eight"] > before["utility/model"] * 0.9
