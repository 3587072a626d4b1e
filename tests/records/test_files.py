"""Writing and reading evaluations, and logs of locuslab/tofu's kind."""

import copy
import dataclasses
import json
import math
import os

import pytest

from tif.records import files as records
from tif.records.types import Evaluation, Record, RecordSet, TokenStats

STATS = TokenStats((-0.25, -3.5), (True, False), (-1.0, -2.0), (0.5, 1.5), (0.0, 0.125))
FULL = Record(
    "a/0",
    "Wer ist \u201eJos\u00e9\u201c?",
    "Ein Autor.",
    0.1 + 0.2,
    2,
    1 / 3,
    (2.0, 1e-17),
    "Er\nschreibt.",
    STATS,
)
BARE = Record("a/1", "Who?", "Me.", 2.5, 2)
EVALUATION = Evaluation(
    model="runs/x",
    family="llama2-7b",
    epoch=3,
    protocol={"name": "open-unlearning", "new_tokens": 200},
    sets={
        "retain": RecordSet("retain", (FULL, BARE), "0123456789abcdef"),
        "forget": RecordSet("forget", (BARE,)),
    },
)
AGGREGATES = {"retain/probability": 0.25, "retain/rougeL": None}

ROWS = {
    "avg_gt_loss": [0.5, 1.5],
    "num_token_gt": [4, 7],
    "avg_paraphrased_loss": [0.75, 1.25],
    "average_perturb_loss": [[1.0, 2.0], [3.0, 4.0]],
    "generated_text": [
        ["[INST] Who? [/INST]", "Me, I guess.", "Me."],
        ["[INST] Why? [/INST]", "No.", "So."],
    ],
}


def _dicts(rows):
    return {
        column: {str(i): value for i, value in enumerate(values)} for column, values in rows.items()
    }


def _log(tmp_path, task, name="eval_log_forget.json"):
    path = tmp_path / "log.json"
    path.write_text(json.dumps({name: task}))
    return path


def _edit(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_what_is_written_is_read_back_the_same(tmp_path):
    records.write_evaluation(tmp_path / "eval" / "3", EVALUATION, AGGREGATES)
    actual = records.read_evaluation(tmp_path / "eval" / "3")
    assert actual == EVALUATION
    assert list(actual.sets) == ["retain", "forget"]


def test_files_hold_records_by_id_and_metrics_with_their_protocol(tmp_path):
    records.write_evaluation(tmp_path, EVALUATION, AGGREGATES)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "aggregates.json",
        "forget.json",
        "retain.json",
    ]
    retain = json.loads((tmp_path / "retain.json").read_text(encoding="utf-8"))
    assert (retain["set"], retain["model"], retain["data"]) == (
        "retain",
        "runs/x",
        "0123456789abcdef",
    )
    assert retain["protocol"] == {"name": "open-unlearning", "new_tokens": 200}
    assert retain["records"]["a/1"]["loss"] == 2.5
    aggregates = json.loads((tmp_path / "aggregates.json").read_text())
    assert aggregates["metrics"] == AGGREGATES
    assert aggregates["protocol"]["name"] == "open-unlearning"


def test_a_record_is_a_line_and_its_statistics_are_columns(tmp_path):
    records.write_evaluation(tmp_path, EVALUATION, AGGREGATES)
    lines = (tmp_path / "retain.json").read_text(encoding="utf-8").splitlines()
    (line,) = [text for text in lines if text.startswith('  "a/0": ')]
    fields = json.loads(line.removeprefix('  "a/0": ').removesuffix(","))
    columns = {
        "logprob": [-0.25, -3.5],
        "top": "10",
        "mean": [-1.0, -2.0],
        "std": [0.5, 1.5],
        "kl": [0.0, 0.125],
        "ended": True,
    }
    assert fields["stats"] == columns


def test_a_write_killed_between_files_leaves_no_old_aggregates_and_no_half_file(
    tmp_path, monkeypatch
):
    records.write_evaluation(tmp_path, EVALUATION, AGGREGATES)
    replace, calls = os.replace, []

    def dies_at_the_second_file(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", dies_at_the_second_file)
    with pytest.raises(KeyboardInterrupt):
        records.write_evaluation(tmp_path, dataclasses.replace(EVALUATION, epoch=4), AGGREGATES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["forget.json", "retain.json"]
    assert json.loads((tmp_path / "retain.json").read_text())["epoch"] == 4
    with pytest.raises(
        ValueError, match="no aggregates.json in it: not an evaluation, or one that did not finish"
    ):
        records.read_evaluation(tmp_path)


def test_an_aggregate_that_is_nan_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="forget/quality is nan"):
        records.write_evaluation(tmp_path / "eval", EVALUATION, {"forget/quality": math.nan})
    assert not (tmp_path / "eval").exists()


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        (
            "retain",
            lambda c: c["records"]["a/1"].pop("loss"),
            "retain.json: records/a/1/loss is missing",
        ),
        (
            "retain",
            lambda c: c["records"]["a/1"].update(loss=math.nan),
            "retain.json: records/a/1/loss is nan",
        ),
        (
            "retain",
            lambda c: c["records"]["a/1"].update(loss=True),
            "records/a/1/loss: want a number, got True",
        ),
        (
            "retain",
            lambda c: c["records"]["a/1"].update(answer=7),
            "records/a/1/answer: want a text, got 7",
        ),
        ("retain", lambda c: c["records"]["a/1"].pop("answer"), "records/a/1/answer is missing"),
        (
            "retain",
            lambda c: c["records"]["a/1"].update(tokens=1.5),
            "records/a/1/tokens: want a whole number, got 1.5",
        ),
        (
            "retain",
            lambda c: c["records"]["a/1"].update(tokens=0),
            "records/a/1: record a/1: tokens is 0, want at least 1",
        ),
        (
            "retain",
            lambda c: c["records"]["a/0"].update(perturbed_losses=1.0),
            "records/a/0/perturbed_losses: want a list, got 1.0",
        ),
        (
            "retain",
            lambda c: c["records"]["a/0"].update(stats=[1]),
            "records/a/0/stats: want an object, got [1]",
        ),
        (
            "retain",
            lambda c: c["records"]["a/0"]["stats"].pop("mean"),
            "records/a/0/stats/mean is missing",
        ),
        (
            "retain",
            lambda c: c["records"]["a/0"]["stats"].update(kl=[1.0]),
            "records/a/0/stats: kl has 1 numbers, top has 2",
        ),
        (
            "retain",
            lambda c: c["records"]["a/0"]["stats"].update(top="1x"),
            "records/a/0/stats/top/1: ",
        ),
        (
            "retain",
            lambda c: c["records"].update({"a/1": []}),
            "records/a/1: want an object, got []",
        ),
        ("retain", lambda c: c.pop("records"), "retain.json: records: want an object, got None"),
        (
            "retain",
            lambda c: c.update(data="fedcba9876543210"),
            "retain.json: data is 'fedcba9876543210', but aggregates.json says '0123456789abcdef'",
        ),
        (
            "retain",
            lambda c: c["records"].pop("a/0"),
            "retain.json: questions is 1, but aggregates.json says 2",
        ),
        ("retain", lambda c: c.update(set="forget"), "retain.json: set is 'forget', but aggreg"),
        ("aggregates", lambda c: c.update(data=[]), "aggregates.json: data: want an object, got"),
        (
            "forget",
            lambda c: c.update(epoch=2),
            "forget.json: epoch is 2, but aggregates.json says 3",
        ),
        ("aggregates", lambda c: c.pop("sets"), "aggregates.json: sets: want a list, got None"),
        (
            "aggregates",
            lambda c: c["sets"].append("world_facts"),
            "world_facts.json: missing, though aggregates.json",
        ),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line_that_names_the_place(
    tmp_path, file, edit, message
):
    records.write_evaluation(tmp_path, EVALUATION, AGGREGATES)
    _edit(tmp_path / f"{file}.json", edit)
    with pytest.raises(ValueError, match=r".") as error:
        records.read_evaluation(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_set_left_over_from_an_earlier_evaluation_is_not_read(tmp_path):
    records.write_evaluation(tmp_path, EVALUATION, AGGREGATES)
    only_forget = dataclasses.replace(
        EVALUATION, epoch=4, sets={"forget": EVALUATION.sets["forget"]}
    )
    records.write_evaluation(tmp_path, only_forget, {})
    assert records.read_evaluation(tmp_path) == only_forget


@pytest.mark.parametrize(
    "field",
    [{"loss": math.nan}, {"paraphrased_loss": math.inf}, {"perturbed_losses": (1.0, math.nan)}],
)
def test_a_record_refuses_a_loss_that_is_not_finite(field):
    with pytest.raises(
        ValueError, match=rf"record a/0: {next(iter(field))}.* is (nan|inf), want a finite number"
    ):
        dataclasses.replace(FULL, **field)


def test_two_records_of_a_set_cannot_have_the_same_id():
    with pytest.raises(ValueError, match="forget: two records have the id 'a/1'"):
        RecordSet("forget", (BARE, BARE))


@pytest.mark.parametrize("shape", [_dicts, dict], ids=["dicts", "lists"])
def test_a_log_of_another_repository_becomes_records(tmp_path, shape):
    actual = records.read_evaluation(_log(tmp_path, shape(ROWS)))
    answers = ("Me.", 0.5, 4, 0.75, (1.0, 2.0), "Me, I guess.")
    first = Record("forget/0", "[INST] Who? [/INST]", *answers, group="author/0")
    answers = ("So.", 1.5, 7, 1.25, (3.0, 4.0), "No.")
    second = Record("forget/1", "[INST] Why? [/INST]", *answers, group="author/0")
    sets = {"forget": RecordSet("forget", (first, second))}
    assert actual == Evaluation("log", sets, protocol={"name": "legacy-tofu"})


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("eval_log.json", "retain"),
        ("eval_real_author_wo_options.json", "real_authors"),
        ("eval_real_world_wo_options.json", "world_facts"),
        ("eval_log_forget.json", "forget"),
    ],
)
def test_each_task_of_a_log_has_its_set(tmp_path, task, name):
    sets = records.read_evaluation(_log(tmp_path, _dicts(ROWS), task)).sets
    assert list(sets) == [name]
    assert sets[name].records[1].id == f"{name}/1"


def test_rows_of_a_log_are_matched_by_key_whatever_their_order(tmp_path):
    task = _dicts(ROWS)
    task["avg_paraphrased_loss"] = {"1": 1.25, "0": 0.75}
    first, second = records.read_evaluation(_log(tmp_path, task)).sets["forget"].records
    assert (first.paraphrased_loss, second.paraphrased_loss) == (0.75, 1.25)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda t: t.pop("avg_paraphrased_loss"),
            "eval_log_forget.json/avg_paraphrased_loss is missing",
        ),
        (
            lambda t: t.update(avg_gt_loss=3),
            "eval_log_forget.json/avg_gt_loss: want an object, got 3",
        ),
        (
            lambda t: t["avg_gt_loss"].update({"1": math.nan}),
            "eval_log_forget.json/avg_gt_loss/1 is nan",
        ),
        (
            lambda t: t["average_perturb_loss"]["1"].append(math.inf),
            "eval_log_forget.json/average_perturb_loss/1/2 is inf",
        ),
        (
            lambda t: t.update(truth_ratio={"0": -math.inf}),
            "eval_log_forget.json/truth_ratio/0 is -inf",
        ),
        (
            lambda t: t["generated_text"].pop("1"),
            "/generated_text has 1 rows, avg_gt_loss 2: only one of them has row 1",
        ),
        (
            lambda t: t["avg_gt_loss"].pop("0"),
            "/num_token_gt has 2 rows, avg_gt_loss 1: only one of them has row 0",
        ),
        (lambda t: t["num_token_gt"].update({"0": 0}), "/num_token_gt/0: "),
        (
            lambda t: t["avg_gt_loss"].update({"1": "low"}),
            "/avg_gt_loss/1: want a number, got 'low'",
        ),
        (
            lambda t: t["average_perturb_loss"].update({"0": 1.0}),
            "/average_perturb_loss/0: want a list, got 1.0",
        ),
        (lambda t: t["generated_text"]["1"].pop(), "/generated_text/1: "),
        (
            lambda t: t["avg_gt_loss"].update({"1": -0.5}),
            "/avg_gt_loss/1: want at least 0, got -0.5",
        ),
        (
            lambda t: t["average_perturb_loss"].update({"1": [1.0, -2.0]}),
            "/average_perturb_loss/1/1: want at least 0, got -2.0",
        ),
        (
            lambda t: t["average_perturb_loss"].update({"1": [1.0]}),
            "/average_perturb_loss/1 has 1 losses, want 2 as in the other rows",
        ),
        (
            lambda t: t["average_perturb_loss"].update({"1": []}),
            "/average_perturb_loss/1: want one or more, got []",
        ),
        (
            lambda t: t["generated_text"]["0"].__setitem__(2, " "),
            "/generated_text/0: want a prompt and an answer that are not blank",
        ),
    ],
)
def test_a_damaged_log_is_refused_in_one_line_that_names_file_task_column_and_row(
    tmp_path, edit, message
):
    task = _dicts(copy.deepcopy(ROWS))
    edit(task)
    with pytest.raises(ValueError, match=r".") as error:
        records.read_evaluation(_log(tmp_path, task))
    assert str(error.value).startswith(f"{tmp_path / 'log.json'}: eval_log_forget.json/")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_of_different_lengths_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match="num_token_gt has 1 rows, avg_gt_loss 2: only one of them has row 1"
    ):
        records.read_evaluation(_log(tmp_path, ROWS | {"num_token_gt": [4]}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"eval_log.json": {"avg_gt_loss": {"0": 1.5, "7": 2.5, "7": 0.5}}}',
            "eval_log.json/avg_gt_loss/7 stands there twice, want each key once",
        ),
        ('{"eval_log.json": {}, "eval_log.json": {}}', "eval_log.json stands there twice, want"),
        ('{"a": [{"b": 1, "b": 1}]}', "a/0/b stands there twice, want each key once"),
        ('{"a": 1e999}', "a is inf, want a finite number"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "not valid JSON"),
    ],
    ids=["row", "task", "in a list", "infinite", "deep"],
)
def test_a_key_that_stands_twice_is_refused_with_its_place(tmp_path, text, message):
    path = tmp_path / "log.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r".") as error:
        records.read_evaluation(path)
    assert str(error.value).startswith(f"{path}: {message}")


def test_a_record_that_stands_twice_in_our_own_file_is_refused(tmp_path):
    records.write_evaluation(tmp_path, EVALUATION, AGGREGATES)
    path = tmp_path / "retain.json"
    line = next(text for text in path.read_text().splitlines() if text.startswith('  "a/1": '))
    path.write_text(path.read_text().replace(line, f"{line},\n{line}"))
    with pytest.raises(ValueError, match="records/a/1 stands there twice, want each key once"):
        records.read_evaluation(tmp_path)


def test_a_set_of_another_split_is_refused(tmp_path):
    # the same model, epoch and rules: only the fingerprint of the samples tells the two apart
    records.write_evaluation(tmp_path / "a", EVALUATION, AGGREGATES)
    other = dataclasses.replace(EVALUATION.sets["retain"], data="fedcba9876543210")
    sets = EVALUATION.sets | {"retain": other}
    records.write_evaluation(tmp_path / "b", dataclasses.replace(EVALUATION, sets=sets), {})
    (tmp_path / "b" / "retain.json").rename(tmp_path / "a" / "retain.json")
    with pytest.raises(ValueError, match="retain.json: data is 'fedcba9876543210', but aggregate"):
        records.read_evaluation(tmp_path / "a")


@pytest.mark.parametrize(
    "field", [{"loss": -0.5}, {"paraphrased_loss": -1e-3}, {"perturbed_losses": (1.0, -2.0)}]
)
def test_a_record_refuses_a_negative_loss(field):
    with pytest.raises(ValueError, match=rf"record a/0: {next(iter(field))} is -.*, want at leas"):
        dataclasses.replace(FULL, **field)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"eval_log.json": _dicts(ROWS)})[:-40], "not valid JSON, perhaps cut short"),
        ("", "not valid JSON, perhaps cut short"),
        ("[1, 2]", r"want a JSON object, got \[1, 2\]"),
        ('{"loss": 1}', "not an evaluation log: want tasks eval_log.json, .*; got loss"),
        ('{"eval_log.json": 3}', "eval_log.json: want an object, got 3"),
        ('{"eval_log.json": NaN}', "eval_log.json is nan, want a finite number"),
    ],
    ids=["truncated", "empty", "list", "foreign", "no columns", "NaN"],
)
def test_a_file_that_is_no_log_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "log.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        records.read_evaluation(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_bytes_that_are_not_text_are_refused_and_never_unpickled(tmp_path):
    path = tmp_path / "log.pkl"
    path.write_bytes(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtins\x94.")
    with pytest.raises(ValueError, match="not valid JSON"):
        records.read_evaluation(path)


def test_nothing_at_the_path_is_said_to_be_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.json"):
        records.read_evaluation(tmp_path / "absent.json")
