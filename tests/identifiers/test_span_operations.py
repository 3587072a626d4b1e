import pytest

from tif.data.samples import Span
from tif.identifiers.span_operations import (
    agreement,
    complement,
    join_neighbours,
    majority,
    merge_spans,
)


def test_neighbours_join_over_blanks_and_nothing_else():
    text = "Mira  Dell, born\nin Oslo"
    spans = [Span(0, 4), Span(6, 10), Span(12, 16), Span(17, 19)]
    assert join_neighbours(text, spans) == (Span(0, 10), Span(12, 19))
    assert join_neighbours(text, []) == ()
    assert join_neighbours("中国", [Span(0, 1), Span(1, 2)]) == (Span(0, 2),)


@pytest.mark.parametrize(
    ("answer", "general", "expected"),
    [
        ("ab cd ef", [(3, 5)], ["ab", "ef"]),
        ("ab cd ef", [(0, 2), (3, 5), (6, 8)], []),  # only blanks are left
        ("ab cd ef", [], ["ab cd ef"]),  # inner blanks stay
        ("ab cd ef", [(0, 8)], []),
        ("ab cd ef", [(6, 8), (0, 2)], ["cd"]),  # unsorted
        ("ab cd ef", [(0, 5), (3, 5)], ["ef"]),  # overlapping
        ("ab, cd", [(0, 2), (4, 6)], [","]),
        ("impacted", [(6, 8)], ["impact"]),  # a word cut by a general span
        ("\n ab\t\u00a0cd \n", [(6, 8)], ["ab"]),  # any Unicode blank is trimmed
    ],
)
def test_complement_splits_at_general_spans_and_trims_blanks(answer, general, expected):
    spans = tuple(complement(answer, [Span(*span) for span in general]))
    assert [answer[span.start : span.end] for span in spans] == expected
    assert merge_spans(spans) == spans


def test_majority_and_agreement_by_hand():
    a, b, c = (Span(0, 8),), (Span(4, 8),), (Span(4, 12),)
    assert majority([a, b, c]) == (Span(4, 8),)
    assert majority([a, b]) == (Span(4, 8),)  # half is no majority
    assert majority([a, ()]) == majority([()]) == ()
    assert majority([(Span(0, 2), Span(1, 4))]) == (Span(0, 4),)
    assert majority([(Span(0, 2), Span(2, 4))] * 2) == (Span(0, 4),)
    assert agreement("one two three", [(Span(0, 3),), (Span(0, 7),)]) == 0.5
    assert agreement("one two", [(), ()]) == agreement("one", [(Span(0, 3),)]) == 1.0
    assert agreement("one two", [(), (Span(0, 3),)]) == 0.0


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], []),
        ([(3, 5)], [(3, 5)]),
        ([(6, 8), (0, 2)], [(0, 2), (6, 8)]),
        ([(0, 2), (2, 4)], [(0, 4)]),  # touching
        ([(0, 2), (3, 4)], [(0, 2), (3, 4)]),  # one character between
        ([(0, 9), (2, 4), (8, 10)], [(0, 10)]),  # one inside another
    ],
)
def test_merge_joins_what_overlaps_or_touches(spans, expected):
    assert merge_spans(Span(*span) for span in spans) == tuple(Span(*span) for span in expected)
