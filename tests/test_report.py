import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
from rich.console import Console

from tests.support.small_run import files, finished, rows
from tif import report
from tif.records import files as records
from tif.reports import plots, run_tables
from tif.reports.columns import COLUMNS, format_number
from tif.reports.run_folder import evaluation_rows, retain_row, summarize


@pytest.fixture
def run(tmp_path_factory, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished(tmp_path_factory).folder, tmp_path / "run [bold]1[/] :smile:")


def shown(table, width=200):
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def cells(line):
    return [cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"), (0.0, "0.000"), (1, "1.000"), (0.12345, "0.123"), (0.001, "0.001"), (0.00099, "9.9e-04"),
        (3.2e-17, "3.2e-17"), (-0.5, "-0.500"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_and_small_ones_are_powers(value, expected):
    assert format_number(value) == expected


def test_the_table_has_a_row_an_epoch_and_the_retain_models(run):
    text = shown(run_tables.metrics_table(evaluation_rows(run), retain_row(run)))
    lines = [cells(line) for line in text.splitlines() if "│" in line]
    assert [line[0] for line in lines] == ["before", "1", "2", "retain model"]
    head = cells(next(line for line in text.splitlines() if "┃" in line))
    for name, row in zip(("before", "1", "2"), evaluation_rows(run), strict=True):
        line = next(line for line in lines if line[0] == name)
        assert head[1:] == [title for key, title in COLUMNS.items() if key in row]
        for key in row.keys() & COLUMNS:
            assert line[head.index(COLUMNS[key])] == format_number(row[key])
    assert lines[-1][head.index("forget quality ↑")] == "-"
    assert lines[-1][head.index("model utility ↑")] == format_number(retain_row(run)["utility/model"])


def test_the_table_leaves_no_number_out_on_a_narrow_terminal(run):
    text = shown(run_tables.metrics_table(evaluation_rows(run), retain_row(run)), width=80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_columns_that_no_row_has_are_left_out():
    text = shown(run_tables.metrics_table([{"epoch": 0, "step": 0, "forget/probability": 0.5}], {}))
    head = next(line for line in text.splitlines() if "┃" in line)
    assert cells(head) == ["epoch", "forget prob. ↓"]
    assert len([line for line in text.splitlines() if "│" in line]) == 1


def odd_records(folder, **texts):
    found = records.read_evaluation(folder)
    first, *rest = found.sets["forget"].records
    forget = dataclasses.replace(found.sets["forget"], records=(dataclasses.replace(first, **texts), *rest))
    aggregates = json.loads((folder / "aggregates.json").read_text())["metrics"]
    records.write_evaluation(folder, dataclasses.replace(found, sets={**found.sets, "forget": forget}), aggregates)


def test_markup_in_texts_of_the_data_is_shown_as_it_is(run):
    odd = {"prompt": "Who is [bold]she[/bold]?", "answer": "[red]x[/]", "generated": "[/] :smile: \\[dim]y"}
    for epoch in ("0", "2"):
        odd_records(run / "eval" / epoch, **odd)
    text = shown(run_tables.generations_table(run, 0, 2))
    line = cells(next(line for line in text.splitlines() if "she" in line))
    assert line == [odd["prompt"], odd["answer"], odd["generated"], odd["generated"]]


def test_generations_are_spread_over_the_forget_set_and_stand_beside_the_true_answer(run):
    before, after = (records.read_evaluation(run / "eval" / e).sets["forget"].records for e in ("0", "2"))
    text = "".join(shown(run_tables.generations_table(run, 0, 2), width=600).split())
    for i in (0, 2, 5):  # three of eight
        row = "│".join((before[i].prompt, before[i].answer, before[i].generated or "", after[i].generated or ""))
        assert "".join(row.split()) in text
    assert "".join(before[1].answer.split()) not in text


@pytest.mark.parametrize(
    ("total", "wanted", "expected"),
    [(8, 3, [0, 2, 5]), (3, 3, [0, 1, 2]), (2, 3, [0, 1]), (5, 0, []), (40, 1, [0])],
)
def test_samples_are_spread_evenly(total, wanted, expected):
    assert run_tables.spread_indices(total, wanted) == expected


def test_the_command_makes_table_and_plots_again_from_the_folder_alone(run):
    before = files(run)
    for name in ("quality_utility.png", "losses.png"):
        (run / name).unlink()
    command = [sys.executable, "-m", "tif.report", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "retain" in done.stdout
    assert done.stdout.splitlines()[-1] == f"run folder: {run}"
    assert set(files(run)) == set(before)
    for name in ("quality_utility.png", "losses.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")


def test_the_command_needs_no_torch(run):
    code = "import sys; from tif import report; report.main(sys.argv[1:]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, check=True)


def test_a_folder_that_is_no_run_is_told_in_one_line(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path}: no run folder (no metrics.jsonl in it)\n"
    assert report.main([]) == 2
    assert report.main(["--help"]) == 0


def test_a_run_that_is_still_going_is_reported_up_to_its_last_whole_row(run, capsys):
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text[:-20])
    (run / "summary.json").unlink()
    assert report.main([str(run)]) == 0
    assert len(evaluation_rows(run)) == 2
    assert "epoch 1" in capsys.readouterr().out


def test_a_run_without_evaluations_is_reported_by_its_folder(run, capsys):
    lines = (run / "metrics.jsonl").read_text().splitlines(True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if "train/loss" in line))
    assert report.main([str(run)]) == 0
    assert capsys.readouterr().out == f"run folder: {run}\n"
    assert summarize(run)["start"] is None


def test_the_plots_show_every_evaluation_and_every_step(run, monkeypatch):
    from matplotlib.figure import Figure

    drawn = {}
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: drawn.update({path.name: self}))
    plots.write_plots(run)
    found = rows(run)
    axes = drawn["quality_utility.png"].axes[0]
    evaluated = [r for r in found if "forget/quality" in r]
    assert axes.lines[0].get_ydata().tolist() == [r["forget/quality"] for r in evaluated]
    assert axes.lines[0].get_xdata().tolist() == [r["utility/model"] for r in evaluated]
    assert (axes.get_xlabel(), axes.get_yscale()) == ("model utility", "log")
    training = [r for r in found if "train/loss" in r]
    for axes, part in zip(drawn["losses.png"].axes, ("lpl", "pl", "retain"), strict=True):
        assert axes.lines[0].get_xdata().tolist() == [r["step"] for r in training]
        assert axes.lines[0].get_ydata().tolist() == [r[f"train/{part}"] for r in training]
    assert [axes.get_ylabel() for axes in drawn["losses.png"].axes] == ["LPL", "PL", "retain"]
