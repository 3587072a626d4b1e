"""Batches in parts: what every process must agree on without asking the others."""

import random

import pytest

from tests.support import tiny_models
from tif.data.batch_splitting import split_batch


def test_a_batch_under_the_budget_is_one_part_sorted_by_length():
    assert split_batch([3, 9, 5], 17) == [[1, 2, 0]]


def test_parts_are_consecutive_in_length_and_about_equal():
    # by length 9 7 5 4 3 2: 16 of 30 tokens, then 14
    assert split_batch([2, 9, 4, 7, 3, 5], 16) == [[1, 3], [5, 2, 4, 0]]


def test_a_sample_longer_than_the_budget_is_a_part_of_its_own():
    parts = split_batch([100, 3, 3], 10)
    assert [0] in parts
    assert sorted(i for part in parts for i in part) == [0, 1, 2]


def test_padding_counts_where_there_is_padding():
    lengths = [10, 1, 1, 1, 1, 1, 1]  # 16 tokens, 70 in a rectangle
    assert len(split_batch(lengths, 16)) == 1
    assert all(
        len(part) * max(lengths[i] for i in part) <= 16
        for part in split_batch(lengths, 16, padded=True)
        if part
    )


def test_there_is_a_part_for_each_process_even_where_there_is_no_sample():
    parts = split_batch([5, 6], 100, processes=4)
    assert len(parts) == 4
    assert sorted(len(part) for part in parts) == [0, 0, 1, 1]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_sample_is_in_one_part_no_part_is_over_the_budget_and_processes_have_as_many(
    processes, padded
):
    draw = random.Random(0)
    for _ in range(200):
        lengths = [draw.randint(1, 60) for _ in range(draw.randint(1, 20))]
        budget = draw.randint(60, 300)
        parts = split_batch(lengths, budget, processes, padded)
        assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
        assert len(parts) % processes == 0
        for part in (p for p in parts if p):
            tokens = [lengths[i] for i in part]
            assert (len(part) * max(tokens) if padded else sum(tokens)) <= budget


def test_groups_stay_together_and_the_small_last_one_stands_last_in_its_part():
    # groups [0, 1], [2, 3], [4]: 12, 5 and 9 tokens
    assert split_batch([6, 6, 2, 3, 9], 14, group=2) == [[0, 1], [2, 3, 4]]
    assert split_batch([6, 6, 2, 3, 9], 8, group=2) == [[0, 1], [4], [2, 3]]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_no_group_is_split_whatever_the_lengths_and_the_budget(processes, padded):
    draw = random.Random(1)
    for _ in range(200):
        lengths = [draw.randint(1, 60) for _ in range(draw.randint(1, 30))]
        group, budget = draw.randint(2, 6), draw.randint(16, 300)
        parts = split_batch(lengths, budget, processes, padded, group)
        assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
        assert len(parts) % processes == 0
        for part in parts:
            assert part == sorted(part)
            for i in part[::group]:  # whole groups, each from its first sample on
                assert i % group == 0
                assert {*range(i, min(i + group, len(lengths)))} <= set(part)
            tokens = [lengths[i] for i in part] or [0]
            size = len(part) * max(tokens) if padded else sum(tokens)
            assert len(part) <= group or size <= budget


def test_rows_of_a_batch_keep_their_pairs_and_lose_padding():
    batch = tiny_models.batch_of(*tiny_models.ITEMS)
    batch.retain = tiny_models.batch_of(*tiny_models.ITEMS[::-1])
    part = batch.select_rows([3, 1])
    assert part.ids == ("d", "b")
    assert part.retain.ids == ("a", "c")
    assert part.input_ids.shape == (2, 5)
    assert part.input_ids[1, :4].tolist() == tiny_models.ITEMS[1].input_ids
    assert part.index.tolist() == [3, 1]
    assert part.without_answers().ids == part.ids
    assert not part.without_answers().answer.any()
    assert not part.without_answers().retain.answer.any()
