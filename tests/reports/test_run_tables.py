import dataclasses
import json

import pytest

from tests.support.terminal_text import cells, shown
from tif.records import files as records
from tif.reports.columns import COLUMNS, format_number
from tif.reports.run_folder import evaluation_rows, read_records, retain_row
from tif.reports.run_tables import generations_table, metrics_table, spread_indices


def test_the_table_has_a_row_an_epoch_and_the_retain_models(run):
    text = shown(metrics_table(evaluation_rows(run), retain_row(run)))
    lines = [cells(line) for line in text.splitlines() if "│" in line]
    assert [line[0] for line in lines] == ["before", "1", "2", "retain model"]
    head = cells(next(line for line in text.splitlines() if "┃" in line))
    for name, row in zip(("before", "1", "2"), evaluation_rows(run), strict=True):
        line = next(line for line in lines if line[0] == name)
        assert head[1:] == [title for key, title in COLUMNS.items() if key in row]
        for key in row.keys() & COLUMNS:
            assert line[head.index(COLUMNS[key])] == format_number(row[key])
    assert lines[-1][head.index("forget quality ↑")] == "-"
    utility = format_number(retain_row(run)["utility/model"])
    assert lines[-1][head.index("model utility ↑")] == utility


def test_the_table_leaves_no_number_out_on_a_narrow_terminal(run):
    text = shown(metrics_table(evaluation_rows(run), retain_row(run)), width=80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_columns_that_no_row_has_are_left_out():
    text = shown(metrics_table([{"epoch": 0, "step": 0, "forget/probability": 0.5}], {}))
    head = next(line for line in text.splitlines() if "┃" in line)
    assert cells(head) == ["epoch", "forget prob. ↓"]
    assert len([line for line in text.splitlines() if "│" in line]) == 1


def change_first_record(folder, **texts):
    evaluation = records.read_evaluation(folder)
    forget = evaluation.sets["forget"]
    first, *rest = forget.records
    forget = dataclasses.replace(forget, records=(dataclasses.replace(first, **texts), *rest))
    changed = dataclasses.replace(evaluation, sets={**evaluation.sets, "forget": forget})
    aggregates = json.loads((folder / "aggregates.json").read_text())["metrics"]
    records.write_evaluation(folder, changed, aggregates)


def generations(run):
    return generations_table(read_records(run, 0), read_records(run, 2), 3)


def test_markup_in_texts_of_the_data_is_shown_as_it_is(run):
    odd = {
        "prompt": "Who is [bold]she[/bold]?",
        "answer": "[red]x[/]",
        "generated": "[/] :smile: \\[dim]y",
    }
    for epoch in ("0", "2"):
        change_first_record(run / "eval" / epoch, **odd)
    text = shown(generations(run))
    line = cells(next(line for line in text.splitlines() if "she" in line))
    assert line == [odd["prompt"], odd["answer"], odd["generated"], odd["generated"]]


def test_generations_are_spread_over_the_forget_set_and_stand_beside_the_true_answer(run):
    before = records.read_evaluation(run / "eval" / "0").sets["forget"].records
    after = records.read_evaluation(run / "eval" / "2").sets["forget"].records
    text = "".join(shown(generations(run), width=600).split())
    for i in (0, 2, 5):  # three of eight
        generated = (before[i].generated or "", after[i].generated or "")
        row = "│".join((before[i].prompt, before[i].answer, *generated))
        assert "".join(row.split()) in text
    assert "".join(before[1].answer.split()) not in text


@pytest.mark.parametrize(
    ("total", "wanted", "expected"),
    [(8, 3, [0, 2, 5]), (3, 3, [0, 1, 2]), (2, 3, [0, 1]), (5, 0, []), (40, 1, [0])],
)
def test_samples_are_spread_evenly(total, wanted, expected):
    assert spread_indices(total, wanted) == expected
