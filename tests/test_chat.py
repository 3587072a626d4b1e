"""`python -m tif.chat`: the same question to several models, for people and for scripts."""

import io
import json
import shutil

import pytest
from rich.console import Console

from tif import chat
from tif.data.samples import Sample, Span
from tif.records import files as records
from tif.reports.chat import KnownAnswers, answers_table
from tif.utils import terminal

ROLES = ["target", "unlearned", "retain"]
KNOWN = KnownAnswers(
    {
        "who wrote it?": Sample(
            "a", "Who wrote it?", "Jaime Vasquez of Oslo.", (Span(0, 13), Span(17, 21))
        ),
        "where?": Sample("b", "Where?", "In Łódź, No 7.", (Span(3, 7), Span(12, 13))),
        "why?": Sample("c", "Why?", "For money."),
    }
)


def ask(capsys, *words):
    """Return the answered questions of tif chat --json."""
    assert chat.main([*map(str, words), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(scope="session")
def forget(finished_run):
    """The run's last records of the forget set."""
    return records.read_evaluation(finished_run.folder / "eval" / "2").sets["forget"].records


@pytest.mark.parametrize("memory", ["all", "one"])
def test_each_model_says_what_it_said_in_its_evaluation(capsys, finished_run, forget, memory):
    retain = records.read_evaluation(finished_run.retain).sets["forget"].records
    questions = [f"--question={record.prompt}" for record in forget[:3]]
    rows = ask(capsys, finished_run.folder, f"memory={memory}", *questions)
    assert [row["question"] for row in rows] == [record.prompt for record in forget[:3]]
    assert [list(row["answers"]) for row in rows] == [ROLES] * 3
    for row, ours, theirs in zip(rows, forget, retain, strict=False):
        assert row["answers"]["unlearned"] == ours.generated
        assert row["answers"]["retain"] == theirs.generated
        assert row["in_the_data"] == ours.answer


def test_unwanted_words_are_those_of_the_known_answer_or_else_of_any():
    def marked(text, question):
        return [text[span.start : span.end] for span in KNOWN.mark(text, question)]

    assert marked("VASQUEZ, not Jaimes, in Łódź.", " who  WROTE it?") == ["VASQUEZ"]
    assert marked("Vasquez in Łódź, oslo, 7 for money", "Tell me.") == [
        "Vasquez",
        "Łódź",
        "oslo",
    ]  # 7 is too short
    assert marked("7 times in Oslo", "Where?") == ["7"]
    assert marked("Jaime Vasquez", "Was it Jaime?") == [
        "Vasquez"
    ]  # the question says the other itself
    assert marked("For money", "Why?") == []


@pytest.mark.parametrize("width", [80, 120])
def test_answers_stand_side_by_side_and_unwanted_words_are_red(width):
    answers = {
        "target": "Jaime Vasquez \x1b[2J did\u202e. " * 5,
        "unlearned": "Nobody.",
        "retain": "A man.",
    }
    console = Console(
        width=width, file=io.StringIO(), record=True, force_terminal=True, color_system="standard"
    )
    console.print(answers_table("Who wrote it?", answers, KNOWN))
    styled = console.export_text(styles=True, clear=False)
    assert "\x1b[1;31mVasquez\x1b[0m" in styled
    assert "\x1b[2J" not in styled
    assert "\u202e" not in styled
    lines = console.export_text().splitlines()
    assert lines[1].rstrip() == "Who wrote it?"
    assert [line.split() for line in lines if "target" in line] == [ROLES]
    assert max(map(len, lines)) == width
    assert lines[-1].rstrip() == "in the data: Jaime Vasquez of Oslo."


def test_a_plain_log_has_a_line_for_each_answer_and_obeys_no_question(capsys, llama, other_llama):
    words = [f"model.path={llama}", f"retain_model={other_llama}", "max_new_tokens=5"]
    assert chat.main([*words, "--question", "Who\x1b[31m?"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:1] for line in lines[:3]] == [["unlearned"], ["retain"], ["question"]]
    assert lines[2] == "question   Who\\x1b[31m?"


def test_models_that_are_not_there_are_named_and_the_others_answer(
    capsys, finished_run, tmp_path, monkeypatch
):
    runs = shutil.copytree(finished_run.runs, tmp_path / "runs")
    config = runs / "quickstart" / "config.yaml"
    config.write_text(config.read_text().replace(str(finished_run.runs), str(runs)))
    (retain,) = (runs / "stages").glob("retain-*[0-9a-f]")
    shutil.rmtree(retain)
    monkeypatch.chdir(tmp_path)
    words = ["runs/quickstart", "--question", "Who?", "max_new_tokens=2"]
    assert chat.main([*words, "--json"]) == 0
    shown = capsys.readouterr()
    assert list(json.loads(shown.out)["answers"]) == ["target", "unlearned"]
    (line,) = [line for line in shown.err.splitlines() if line.startswith("retain_model:")]
    assert line.endswith("another version of tif made it; want retain_model=MODEL")
    shutil.rmtree(runs / "quickstart" / "model")
    assert list(ask(capsys, *words)[0]["answers"]) == ["target"]
    shutil.rmtree(runs / "stages")
    assert chat.main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["target", "retain_model", "unlearned"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], ("model.path: want a run folder, or a Hugging Face folder or hub name as model.path, "
              "target or")),
        (["nowhere"], "nowhere: no run folder; want one, as runs/quickstart, or model.path="),
        (["model.path=./nowhere"], "model.path: no folder ./nowhere"),
        (["target=./nowhere"], "target: no folder ./nowhere"),
        (["model.path=x/y", "--questions=q.txt"], "--questions: q.txt: no such file"),
        (["model.path=x/y", "--questions=bad.jsonl"],
         '--questions: bad.jsonl: line 2: want a JSON object with the key '
         '"prompt"'),
        (["model.path=x/y", "--questions=latin.txt"], "--questions: latin.txt: save it as UTF-8"),
        (["model.path=x/y", "data.template=Q {prompt}", "data.chat.system=Hi"],
         "data.chat.system: only data.template=chat reads it"),
        (["temperature=1"], "temperature: unknown key"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_before_weights_load(capsys, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"prompt": "Who?"}\n{"q": 1}\n')
    (tmp_path / "latin.txt").write_bytes(b"Wo wohnt M\xfcller?\n")
    assert chat.main(words) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown.startswith(line)


def test_questions_come_from_a_file_or_from_stdin(capsys, llama, tmp_path, monkeypatch):
    (tmp_path / "q.txt").write_text("\ufeffWho?\n\n Where? \n", encoding="utf-8")
    (tmp_path / "q.jsonl").write_text('{"prompt": "Who?", "id": 1}\n{"prompt": "Where?"}\n')
    model = [f"model.path={llama}", "max_new_tokens=1"]
    for source in (
        ["--questions", tmp_path / "q.txt"],
        ["--questions", tmp_path / "q.jsonl"],
        ["--questions=-"],
        [],
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO("Who?\n\nWhere?\n"))
        assert [row["question"] for row in ask(capsys, *model, *source)] == ["Who?", "Where?"]


def test_a_chat_model_is_asked_as_its_own_template_says(capsys, smollm2):
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    model = transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    message = [{"role": "user", "content": "Where is the Eiffel Tower?"}]
    ids = tokenizer.apply_chat_template(
        message, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    new = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    words = [
        f"model.path={smollm2}",
        "data.template=chat",
        "max_new_tokens=8",
        f"--question={message[0]['content']}",
    ]
    (row,) = ask(capsys, *words)
    assert row["answers"] == {"unlearned": tokenizer.decode(new, skip_special_tokens=True).strip()}


def test_the_console_writes_to_stdout_again_after_json(capsys, llama):
    ask(capsys, f"model.path={llama}", "max_new_tokens=1", "--question=Who?")
    assert not terminal.console.stderr
