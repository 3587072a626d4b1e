"""Choose an epoch on one half of the questions, and report it on the other half.

An epoch that is chosen for its numbers looks better in them than it is: of ten equal epochs, one
has a lucky draw. So all questions about half of the subjects (authors, documents) choose, and the
others report. The split depends on the names of the groups alone: it is the same for all epochs and
all runs.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

from tif.metrics import overall
from tif.metrics.overall import CHOICE
from tif.records.comparability import align_records
from tif.records.types import AnswersBySet, Evaluation, RecordSet

SEED = 0
Pair = tuple[Evaluation, Evaluation | None]  # of a model and of the retain model


def split_groups(sets: Sequence[Sequence[str]]) -> tuple[set[str], set[str]]:
    """Return the groups of the half that chooses and of the half that reports.

    A group of several sets is in the same half of all of them. In each set the halves differ by one
    group at most, as far as its groups were not placed before. `sets`: the groups of each.
    """
    choosing: set[str] = set()
    reporting: set[str] = set()
    for groups in sets:
        names = set(groups)
        for name in sorted(names - choosing - reporting, key=_draw_place):
            counts = len(names & choosing), len(names & reporting)
            (choosing if counts[0] < counts[1] else reporting).add(name)
    return choosing, reporting


def _draw_place(group: str) -> bytes:
    return hashlib.sha256(f"{SEED}/{group}".encode()).digest()


def split_evaluation(evaluation: Evaluation, retain: Evaluation | None) -> tuple[Pair, Pair] | None:
    """Return what both models said to the half that chooses, and to the half that reports.

    None where a set has one group only: then there are no halves, and nothing is chosen.
    """
    halves = split_groups([records.groups for records in evaluation.sets.values()])
    pairs: list[Pair] = []
    for half in halves:
        sets, retain_sets = {}, {}
        for name, records in evaluation.sets.items():
            places = [i for i, group in enumerate(records.groups) if group in half]
            if not places:
                return None
            sets[name] = _take(records, places)
            matching = None
            if retain is not None and name in retain.sets:
                matching = align_records(evaluation, retain, name)
            if matching is not None:
                retain_sets[name] = _take(matching, places)
        ours = dataclasses.replace(evaluation, sets=sets)
        theirs = dataclasses.replace(retain, sets=retain_sets) if retain else None
        pairs.append((ours, theirs))
    choosing, reporting = pairs
    return choosing, reporting


def _take(records: RecordSet, places: Sequence[int]) -> RecordSet:
    chosen = tuple(records.records[i] for i in places)
    return dataclasses.replace(records, records=chosen, data=None)


def choosing_values(
    evaluation: Evaluation, retain: Evaluation | None, metric: str, tokens: AnswersBySet
) -> dict[str, float]:
    """Return {"choice/<metric>": its value on the half that chooses}; {} where there is none.

    `tokens`: of the answers, by set and record id.
    """
    halves = split_evaluation(evaluation, retain)
    if halves is None:
        return {}
    value = overall.aggregate(*halves[0], tokens).get(metric)
    return {} if value is None else {CHOICE + metric: value}
