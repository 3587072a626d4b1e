"""Rows of metrics.jsonl that a resumed run drops, and the two kinds of rows."""

import json

import pytest

from tif.records import metrics_log, run_folder

ROWS = (
    '{"epoch": 0, "step": 0, "forget/quality": 0.5}\n'
    '{"epoch": 1, "step": 0, "train/loss": 2.0}\n'
    '{"epoch": 1, "step": 1, "forget/quality": 0.6}\n'
    '{"epoch": 2, "step": 1, "train/loss": 1.0}\n'
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / metrics_log.FILE_NAME
    path.write_text(ROWS)
    return path


def drop(path, steps):
    metrics_log.drop_rows_after(path, steps, metrics_log.read_intact_rows(path)[0])


@pytest.mark.parametrize(("steps", "lines"), [(-1, 0), (0, 1), (1, 3), (2, 4)])
def test_rows_after_a_step_are_dropped_and_an_evaluation_belongs_to_the_steps_before_it(
    path, steps, lines
):
    drop(path, steps)
    assert path.read_text() == "".join(ROWS.splitlines(keepends=True)[:lines])


def test_a_last_line_that_was_cut_is_dropped(path):
    with path.open("a") as file:
        file.write('{"epoch": 2, "step": 2, "forg')
    drop(path, 2)
    assert path.read_text() == ROWS
    metrics_log.append_row(path, 2, 2, {"forget/quality": 0.7})
    assert len(metrics_log.read_rows(path)) == 5


def test_nothing_to_drop_is_no_error(tmp_path):
    drop(tmp_path / "metrics.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


def test_every_row_is_of_a_training_step_or_of_an_evaluation(path):
    rows = [json.loads(line) for line in ROWS.splitlines()]
    assert run_folder.evaluation_rows(path.parent) == rows[::2]
    assert run_folder.training_rows(path.parent) == rows[1::2]
