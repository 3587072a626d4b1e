"""MUSE's metrics on records written by hand: ROUGE counted word by word, AUCs pair by pair."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from tif.metrics import membership, muse, overall
from tif.records.types import Evaluation, Record, RecordSet, TokenStats


def texts(name, *logprobs, prefix="t"):
    """A set of texts with these log-probabilities of their tokens."""
    records = []
    for i, token_logprobs in enumerate(logprobs):
        stats = TokenStats(
            token_logprobs,
            (False,) * len(token_logprobs),
            (-2.0,) * len(token_logprobs),
            (1.0,) * len(token_logprobs),
        )
        records.append(
            Record(
                f"{name}/{i}",
                "",
                f"{prefix} {name} {i}",
                -float(np.mean(token_logprobs)),
                len(token_logprobs),
                stats=stats,
            )
        )
    return RecordSet(name, tuple(records))


def answers(name, *pairs):
    """A set of questions with (answer, generation)."""
    records = (
        Record(f"{name}/{i}", f"Q{i}?", a, 1.0, 2, generated=g) for i, (a, g) in enumerate(pairs)
    )
    return RecordSet(name, tuple(records))


def evaluation(*sets, **keys):
    return Evaluation(
        "m", {record_set.name: record_set for record_set in sets}, protocol={"name": "muse"}, **keys
    )


# Min-K looks at int(5 * 0.4) = 2 of 5 tokens: the scores are 3, 5 (forget) and 4, 6 (holdout).
FORGET = texts("privleak_forget", (-0.5, -2.0, -4.0, -0.1, -0.2), (-5.0, -1.0, -1.0, -5.0, -1.0))
HOLDOUT = texts("privleak_holdout", (-4.0, -4.0, -0.3, -0.2, -0.1), (-6.0, -6.0, -0.5, -0.4, -0.1))
# The retain model: 4, 6 (forget) and 3, 5 (holdout).
RETAIN = evaluation(
    texts("privleak_forget", (-4.0, -4.0, -0.1, -0.1, -0.1), (-6.0, -6.0, -0.1, -0.1, -0.1)),
    texts("privleak_holdout", (-3.0, -3.0, -0.1, -0.1, -0.1), (-5.0, -5.0, -0.1, -0.1, -0.1)),
)


def test_rouge_is_an_f1_in_percent_without_stemming():
    # "the cat sat" against "the cats sat on": common subsequence the, sat. Recall 2/3, precision
    # 2/4: F1 = 4/7.
    recited = answers(
        "verbmem_forget", ("the cat sat", "the cats sat on"), ("a b", "a b"), ("a b", "c")
    )
    assert muse.verbmem(recited) == pytest.approx([400 / 7, 100, 0], rel=1e-12)
    assert muse.knowmem(recited) == pytest.approx([400 / 7, 100, 0], rel=1e-12)


def test_privleak_is_relative_to_the_retain_model_in_muses_direction():
    # Pairs in which holdout scores lower (looks better known): ours (3, 5 | 4, 6) 1 of 4, the
    # retain model's 3 of 4.
    ours = evaluation(FORGET, HOLDOUT)
    assert muse.privleak(ours, RETAIN) == pytest.approx(100 * (0.25 - 0.75) / 0.75, rel=1e-12)
    assert muse.privleak(RETAIN, ours) == pytest.approx(100 * (0.75 - 0.25) / 0.25, rel=1e-12)
    assert muse.privleak(ours, ours) == 0


@pytest.mark.parametrize(
    ("auc", "retain", "expected"),
    # MUSE-News' retain model has A = 0.4772: a target that knows every forget text better is at
    # -100.
    [
        (0.0, 0.4772, -100.0),
        (0.4772, 0.4772, 0.0),
        (1.0, 0.5, 100.0),
        (0.5, 0.4772, 100 * 0.0228 / 0.4772),
    ],
)
def test_privleak_has_muses_sign_and_scale(auc, retain, expected):
    assert muse.relative_leak(auc, retain) == pytest.approx(expected, rel=1e-12)


def test_privleak_relative_to_nothing_has_no_value():
    # A retain model that knows every forget text better than any holdout text.
    seen = evaluation(
        texts("privleak_forget", (-1.0, -1.0), (-1.0, -2.0)),
        texts("privleak_holdout", (-3.0, -3.0), (-4.0, -4.0)),
    )
    ours = evaluation(
        texts("privleak_forget", (-1.0, -1.0), (-5.0, -2.0)), seen.sets["privleak_holdout"]
    )
    assert muse.relative_leak(0.5, 0.0) is None
    assert muse.privleak(ours, seen) is None
    assert muse.aggregate(ours, seen)["muse/privleak"] is None
    assert muse.privleak_interval(ours, seen) is None


def test_privleaks_interval_leaves_the_same_texts_out_of_both_models():
    rng = np.random.default_rng(0)
    sets = []
    for shift in (0.0, 0.3):
        forget = texts("privleak_forget", *(tuple(-rng.exponential(1, 6)) for _ in range(12)))
        holdout = texts(
            "privleak_holdout", *(tuple(-rng.exponential(1 + shift, 6)) for _ in range(9))
        )
        sets.append(evaluation(forget, holdout))
    scores = [
        [membership.min_k_scores(model_records.sets[name]) for name in muse.COMPARED]
        for model_records in sets
    ]

    def leak(left=None, right=None):
        ours, theirs = (
            1 - membership.auc(np.delete(f, left or []), np.delete(h, right or []))
            for f, h in scores
        )
        return 100 * (ours - theirs) / theirs

    parts = [
        (11 * np.var([leak(left=[i]) for i in range(12)]), 11),
        (8 * np.var([leak(right=[i]) for i in range(9)]), 8),
    ]
    total = sum(variance for variance, _ in parts)
    freedom = total**2 / sum(variance**2 / count for variance, count in parts)
    half = scipy.stats.t.ppf(0.975, freedom) * np.sqrt(total)
    expected = max(-100, leak() - half), leak() + half
    assert muse.privleak_interval(*sets) == pytest.approx(expected, rel=1e-9)
    assert muse.privleak_interval(sets[0], sets[0]) == (0, 0)


def test_the_aggregate_has_muses_four_numbers_and_the_attacks():
    ours = evaluation(
        answers("verbmem_forget", ("a b", "a b")),
        answers("knowmem_forget", ("a b", "c")),
        answers("knowmem_retain", ("a b", "a")),
        FORGET,
        HOLDOUT,
    )
    aggregates = overall.aggregate(ours, RETAIN)
    assert {name: aggregates[name] for name in aggregates if name.startswith("muse/")} == {
        "muse/verbmem_forget": 100.0,
        "muse/knowmem_forget": 0.0,
        "muse/knowmem_retain": pytest.approx(200 / 3),
        "muse/privleak": pytest.approx(-200 / 3),
    }
    assert aggregates["membership/min_k"] == 0.75  # open-unlearning's direction: 1 - A
    # Losses: forget 1.36, 2.6; holdout 1.72, 2.6. Won: 1.36 twice; equal: 2.6 and 2.6.
    assert aggregates["membership/loss"] == (2 + 0.5) / 4
    assert (
        aggregates["membership/min_k_plus_plus"] == 0.75
    )  # mean -2 and deviation 1 everywhere: the same order
    assert "muse/privleak" not in muse.aggregate(ours)
    assert "membership/reference" not in aggregates


def test_the_reference_attack_compares_the_same_texts_of_another_model():
    ours = evaluation(FORGET, HOLDOUT)
    scores = membership.attack_scores(
        ours, RETAIN, {"privleak_forget": [1.0, 2.0], "privleak_holdout": [3.0, 4.0]}
    )
    # Losses less the retain model's: forget 1.36 - 1.66, 2.6 - 2.46; holdout 1.72 - 1.26, 2.6 -
    # 2.06.
    assert scores["reference"][0] == pytest.approx([-0.3, 0.14])
    assert scores["reference"][1] == pytest.approx([0.46, 0.54])
    assert membership.auc(*scores["gradient_norm"]) == 1


def other(evaluation_, name, **changes):
    record_set = evaluation_.sets[name]
    record = dataclasses.replace(record_set.records[0], **changes)
    sets = dict(evaluation_.sets) | {name: RecordSet(name, (record, *record_set.records[1:]))}
    return dataclasses.replace(evaluation_, sets=sets)


def test_a_retain_evaluation_of_other_texts_is_refused_unless_allowed():
    ours = evaluation(FORGET, HOLDOUT)
    changed = other(RETAIN, "privleak_holdout", answer="something else")
    with pytest.raises(
        ValueError, match=r"only there 1, first privleak_holdout/0: .*allow_mismatch=True"
    ):
        muse.privleak(ours, changed)
    assert muse.privleak(ours, changed, allow_mismatch=True) == pytest.approx(-200 / 3)
    assert muse.privleak_interval(ours, changed) is None
    with pytest.raises(ValueError, match="the reference model's privleak_holdout has other texts"):
        membership.attack_scores(ours, changed)


def test_a_retain_model_of_another_family_is_refused():
    with pytest.raises(
        ValueError, match="the model family is 'llama', the retain model's is 'gpt2'"
    ):
        muse.privleak(
            evaluation(FORGET, HOLDOUT, family="llama"),
            evaluation(*RETAIN.sets.values(), family="gpt2"),
        )


def test_missing_texts_statistics_and_generations_are_named():
    ours = evaluation(FORGET, HOLDOUT)
    with pytest.raises(
        ValueError, match="the retain model's evaluation has no privleak_holdout records"
    ):
        muse.privleak(ours, evaluation(FORGET))
    with pytest.raises(
        ValueError, match="record privleak_forget/0: no log-probabilities of its tokens"
    ):
        overall.aggregate(other(ours, "privleak_forget", stats=None))
    with pytest.raises(
        ValueError, match="knowmem_forget: no generation for 1 of 1: knowmem_forget/0"
    ):
        muse.aggregate(evaluation(answers("knowmem_forget", ("a", None))))
    with pytest.raises(ValueError, match="verbmem_forget: the set has no records"):
        muse.aggregate(evaluation(RecordSet("verbmem_forget", ())))
