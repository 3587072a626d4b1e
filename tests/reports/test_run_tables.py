import dataclasses
import json
import re

import pytest

from tests.support.terminal_text import shown
from tif.records import files as records
from tif.records.run_folder import read_records
from tif.reports.run_tables import (
    MAX_CHARACTERS,
    generations_table,
    list_next_steps,
    model_card,
    spread_indices,
)
from tif.reports.summary import title_of


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
    lines = [line.strip().split(maxsplit=1) for line in shown(generations(run)).splitlines()[2:6]]
    assert lines[:3] == [
        ["question", odd["prompt"]],
        ["truth", odd["answer"]],
        ["before", odd["generated"]],
    ]
    assert lines[3] == ["after", "2    " + odd["generated"]]


def test_before_training_nothing_is_called_after(run):
    before = records.read_evaluation(run / "eval" / "0")
    text = shown(generations_table(before, before, 3), width=600)
    assert "Forget questions, before training" in text
    labels = re.findall(r"^ (question|truth|before|after)\b", text, re.MULTILINE)
    assert labels == ["question", "truth", "before"] * 3


def test_long_texts_are_shortened_where_they_say_least(run):
    words = " ".join(str(number) for number in range(1000))
    for epoch in ("0", "2"):
        change_first_record(run / "eval" / epoch, prompt=words, answer=words, generated=words)
    text = " ".join(shown(generations(run), width=80).split())
    assert f"question … {words[-MAX_CHARACTERS:].strip()}" in text
    for label in ("truth", "before", "after 2"):
        assert f"{label} {words[:MAX_CHARACTERS].strip()} …" in text
    assert max(map(len, shown(generations(run), width=80).splitlines())) <= 80


def test_answers_of_a_run_without_an_evaluation_before_training_are_not_called_before(run):
    evaluations = [records.read_evaluation(run / "eval" / epoch) for epoch in ("1", "2")]
    text = shown(generations_table(*evaluations, 3), width=600)
    labels = re.findall(r"^ (question|truth|before|after \d)\b", text, re.MULTILINE)
    assert labels == ["question", "truth", "after 1", "after 2"] * 3
    assert "before" not in text
    text = shown(generations_table(evaluations[1], evaluations[1], 3), width=600)
    assert text.count("after 2") == 3


def test_generations_are_spread_over_the_forget_set_and_stand_beside_the_true_answer(run):
    before = records.read_evaluation(run / "eval" / "0").sets["forget"].records
    after = records.read_evaluation(run / "eval" / "2").sets["forget"].records
    text = "".join(shown(generations(run), width=600).split())
    for i in (0, 2, 5):  # three of eight
        generated = f"before{before[i].generated}after2{after[i].generated}"
        row = f"question{before[i].prompt}truth{before[i].answer}{generated}"
        assert "".join(row.split()) in text
    assert "".join(before[1].answer.split()) not in text


def test_only_what_is_in_the_folder_is_named_as_a_next_step(tmp_path):
    assert list_next_steps(tmp_path) == [f"run folder: {tmp_path}"]
    (tmp_path / "report.html").touch()
    assert list_next_steps(tmp_path)[1:] == [f"see it: open {tmp_path}/report.html"]
    (tmp_path / "model").mkdir()
    assert list_next_steps(tmp_path)[2:] == [f"ask it: tif chat {tmp_path}"]


@pytest.mark.parametrize(
    ("total", "wanted", "expected"),
    [(8, 3, [0, 2, 5]), (3, 3, [0, 1, 2]), (2, 3, [0, 1]), (5, 0, []), (40, 1, [0])],
)
def test_samples_are_spread_evenly(total, wanted, expected):
    assert spread_indices(total, wanted) == expected


def test_the_model_card_says_that_the_model_did_not_know_the_forget_set(run):
    assert "Before training" not in model_card(run)
    first, *others = (run / "metrics.jsonl").read_text().splitlines()
    row = json.dumps({**json.loads(first), "known/retain_gain": 0.04})
    (run / "metrics.jsonl").write_text("\n".join([row, *others]) + "\n")
    line = next(line for line in model_card(run).splitlines() if line.startswith("Before"))
    assert line.startswith("Before training: the forget answers are 0.04 nats a token likelier")


@pytest.mark.parametrize(
    ("path", "title"),
    [("runs/mine", "mine"), ("runs/methods/tpo/seed0", "tpo/seed0"), ("runs/seeded", "seeded")],
)
def test_a_run_of_a_sweep_is_called_by_its_method_and_seed(tmp_path, path, title):
    assert title_of(tmp_path / path) == title
