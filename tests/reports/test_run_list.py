"""`tif ls runs`: which folders are runs, and what the table says of each."""

import io
import json

import pytest
from rich.console import Console

from tif import ls
from tif.reports import run_list

CONFIG = """
data: {benchmark: tofu, split: forget01, train: forget}
loss: {forget: npo, preserve: none, retain: ce}
model: {path: target, base: org/tiny-llama}
stages: {target: {model: {path: org/tiny-llama}}}
trainer: {max_epochs: 3}
"""
EVALUATION = {"epoch": 2, "step": 8, "forget/quality": 0.25, "utility/model": 0.5}


def write_run(folder, rows=(), config=CONFIG, is_done=False):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    (folder / "env.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if is_done:
        (folder / "summary.json").write_text("{}")
    return folder


def table_of(runs, width):
    output = io.StringIO()
    Console(file=output, width=width).print(run_list.runs_table(runs))
    return output.getvalue()


def test_a_run_tells_method_data_model_epochs_numbers_and_state(tmp_path):
    training = {"epoch": 3, "step": 8, "train/loss": 1.0}  # the third epoch has begun
    write_run(tmp_path / "mine", [EVALUATION, training])
    (run,) = run_list.read_runs([tmp_path])
    assert (run.name, run.settings) == ("mine", "npo+ce on tofu forget01, tiny-llama")
    assert (run.epochs, run.is_done) == ("2/3", False)
    assert (run.metrics["forget/quality"], run.metrics["utility/model"]) == (0.25, 0.5)


def test_runs_of_sweeps_and_stages_are_listed_and_what_lies_inside_a_run_is_not(tmp_path):
    for name in ("a", "sweep/npo/seed0", "stages/target-0123456789ab"):
        write_run(tmp_path / name)
    write_run(tmp_path / "a/wandb/offline-run-1/files")
    (tmp_path / "evaluations/model").mkdir(parents=True)
    names = {run.name for run in run_list.read_runs([tmp_path])}
    assert names == {"a", "sweep/npo/seed0", "stages/target-0123456789ab"}
    assert [run.name for run in run_list.read_runs([tmp_path / "a"])] == [str(tmp_path / "a")]


def test_the_last_epoch_of_a_finished_run_counts_also_without_evaluations(tmp_path):
    rows = [{"epoch": 3, "step": 11, "train/loss": 1.0}]
    write_run(
        tmp_path / "stage", rows, CONFIG.replace("train: forget", "train: retain"), is_done=True
    )
    (run,) = run_list.read_runs([tmp_path])
    assert (run.epochs, run.is_done) == ("3/3", True)
    assert run.settings == "tofu forget01 retain model, tiny-llama"


@pytest.mark.parametrize(("width", "lines"), [(80, 5), (120, 5)])
def test_the_table_fits_the_terminal_and_cuts_no_number(tmp_path, width, lines):
    write_run(
        tmp_path / "a_run_with_a_name_that_is_long_for_a_column_of_80", [EVALUATION], is_done=True
    )
    text = table_of(run_list.read_runs([tmp_path]), width)
    assert max(map(len, text.splitlines())) <= width
    assert len(text.splitlines()) == lines
    for word in ("epochs", "quality", "utility", "0.250", "0.500", "done", "2/3"):
        assert word in text


def test_a_run_of_a_sweep_has_its_name_in_one_line_of_80_columns(tmp_path):
    config = CONFIG.replace("base: org/tiny-llama", "base: null")
    row = EVALUATION | {"forget/extraction_strength": 0.1}
    write_run(tmp_path / "methods_quickstart/tpo_centred/seed0", [row], config)
    lines = table_of(run_list.read_runs([tmp_path]), 80).splitlines()
    assert lines[3].split() == [
        "methods_quickstart/tpo_centred/seed0",
        "2/3",
        "0.250",
        "0.500",
        "0.100",
        "open",
    ]
    assert lines[4].startswith(
        "  npo+ce on tofu forget01  "
    )  # the target model was made from scratch


@pytest.mark.parametrize("damage", ["metrics.jsonl", "config.yaml"])
def test_a_damaged_run_is_named_and_the_others_are_shown(tmp_path, damage, capsys):
    write_run(tmp_path / "good", [EVALUATION])
    (write_run(tmp_path / "bad", [EVALUATION]) / damage).write_text("[1, 2]\n")
    assert ls.main(["runs", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "0.250" in output
    (line,) = [line for line in output.splitlines() if line.startswith("bad: damaged (")]
    assert damage in line


def test_a_name_with_markup_or_controls_is_shown_as_text(tmp_path):
    write_run(tmp_path / "[red]x\x1b[1m")
    text = table_of(run_list.read_runs([tmp_path]), 120)
    assert "[red]x\\x1b[1m" in text
