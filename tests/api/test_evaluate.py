"""tif.evaluate: the numbers of the command, for samples of one's own and for benchmarks."""

import json

import pytest

import tif.evaluate as command
from tests.support.tofu_files import FILES as TOFU
from tif.api.evaluate import evaluate
from tif.config.errors import ConfigError

FORGET = [
    "She was born in Oslo in the winter of 1961, and her father was a baker.",
    ("Where?", "In Oslo."),
]
RETAIN = [("Who?", "The baker.")]


def test_the_numbers_are_the_commands(llama, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    evaluation = evaluate(llama, FORGET, RETAIN, eval={"max_new_tokens": 4})
    (folder,) = tmp_path.glob("evaluations/data/*")
    words = [
        f"model.path={llama}",
        "eval.benchmarks=text",
        f"eval.text.path={folder}",
        "eval.max_new_tokens=4",
    ]
    capsys.readouterr()
    assert command.main([*words, "out=elsewhere", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["benchmarks"]["text"]
    assert evaluation.metrics == expected["metrics"]
    intervals = {name: pair and list(pair) for name, pair in evaluation.intervals.items()}
    assert intervals == expected["intervals"]
    assert evaluation.records["knowmem_forget"].records[0].answer == "In Oslo."
    assert evaluation.metrics["knowmem_forget/exact_memorization"] is not None


def test_several_benchmarks_have_names_of_their_own(llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, rows in TOFU.items():
        (tmp_path / f"{name}.json").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "forget.txt").write_text(FORGET[0])
    keys = {"benchmarks": ["tofu", "text"], "max_new_tokens": 4}
    keys |= {"tofu": {"path": ".", "split": "forget01"}, "text": {"path": "forget.txt"}}
    evaluation = evaluate(llama, eval=keys)
    assert {"tofu/utility/model", "text/muse/verbmem_forget"} <= evaluation.metrics.keys()
    assert {"tofu/forget", "text/verbmem_forget"} <= evaluation.records.keys()


def test_a_notebook_shows_a_table_with_intervals(llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluation = evaluate(
        llama, [("<i>Who</i>?", "A & B.")], eval={"max_new_tokens": 4}, out="<out>"
    )
    page = evaluation._repr_html_()
    assert "95 % interval" in page
    assert "KnowMem on forget questions, percent ↓" in page
    assert "<i>" not in page
    assert "<out>" not in page


def test_a_run_is_evaluated_as_it_was_trained(finished_run, tmp_path, monkeypatch):
    from tif.api.run import Run

    monkeypatch.chdir(tmp_path)
    run = Run(finished_run.folder)
    evaluation = evaluate(run, [("Who?", "A baker.")], eval={"max_new_tokens": 4})
    assert evaluation.title == str(run.folder / "model")
    (record,) = evaluation.records["knowmem_forget"].records
    expected = run.ask("Who?", max_new_tokens=4).unlearned
    assert record.generated.strip() == expected


def test_all_problems_come_at_once(llama):
    with pytest.raises(ConfigError) as caught:
        evaluate(llama, [3], eval={"max_new_tokens": 0}, draws=5)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "forget[0]",
        "draws",
        "eval.max_new_tokens",
    ]
