"""Reading LUME: documents, completions and questions by task; real files and damaged ones."""

import json

import pytest

from tests.support.lume_files import FILES, write
from tif.config.evaluation import EvalRules, make_rules
from tif.config.load import load
from tif.data.benchmarks import read_evaluation_sets
from tif.data.benchmarks.lume import read_lume
from tif.data.benchmarks.muse import VERBMEM
from tif.data.samples import Sample, Task

PLACE = ["data.benchmark=lume", "data.path=/my/lume"]


def message(path, split=None) -> str:
    """What the reader says; always one line that begins with the key."""
    with pytest.raises(ValueError, match="data") as caught:
        read_lume(str(path), split)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(("data.path: ", "data.split: "))
    return text


def test_a_completion_is_a_document_to_forget_and_is_asked_for_its_end(tmp_path):
    benchmark = read_lume(write(tmp_path))
    document = Sample("lume/a-1sc1", "", "Mira Dell walked to the sea. She found a key.")
    question = Sample("lume/a-1qa0", "What did Mira find?", "A key")
    assert benchmark.name == "lume"
    assert benchmark.forget[:2] == (document, question)
    assert benchmark.sets["forget"] == benchmark.forget
    assert benchmark.sets["retain"] == benchmark.retain
    # The blank between the two halves belongs to the answer; the prompt is taken as it is.
    completion = Sample("lume/a-1sc1", "Mira Dell walked to the sea.", " She found a key.")
    assert benchmark.sets["verbmem_forget"][0] == completion
    assert benchmark.tasks["verbmem_forget"] == VERBMEM
    assert benchmark.sets["knowmem_forget"][0] == question
    assert benchmark.tasks["knowmem_forget"].template is None  # the configuration's
    assert benchmark.tasks["forget"] == benchmark.tasks["retain"] == Task(new_tokens=0)
    assert (benchmark.holdout, benchmark.background) == ((), ())


def test_an_end_on_a_new_line_gets_no_blank(tmp_path):
    benchmark = read_lume(write(tmp_path))
    assert benchmark.sets["verbmem_retain"][0].answer == "\nHe painted."
    assert benchmark.retain[0].answer == "Tom Field\nHe painted."


def test_a_split_is_the_rows_of_a_task(tmp_path):
    benchmark = read_lume(write(tmp_path), "task2")
    assert benchmark.name == "lume/task2"
    assert [s.id for s in benchmark.forget] == ["lume/b-2qa0", "lume/b-2qa1"]
    assert [s.id for s in benchmark.retain] == ["lume/d-4qa0"]
    # No document among them: nothing to continue.
    assert list(benchmark.sets) == ["forget", "retain", "knowmem_forget", "knowmem_retain"]
    assert list(benchmark.tasks) == list(benchmark.sets)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"id": "a-1"},
            "forget.jsonl: line 1: want an id that ends in sc or qa and a number, got 'a-1'",
        ),
        ({"id": "b-2qa0"}, "forget.jsonl has the id b-2qa0 twice"),
        (
            {"task": "Task4"},
            "forget.jsonl: line 1: want Task1, Task2 or Task3 as task, got 'Task4'",
        ),
        ({"input": " "}, "forget.jsonl: line 1: want a text as input, got an empty one"),
        ({"output": ""}, "forget.jsonl: line 1: sample lume/a-1sc1: the answer is empty"),
        ({"output": 7}, "forget.jsonl: line 1: want a text as output, got 7"),
    ],
)
def test_a_row_of_another_form_is_named(tmp_path, change, line):
    first, *others = FILES["forget"]
    assert line in message(write(tmp_path, forget=[first | change, *others]))


def test_a_missing_place_or_split_is_named_with_what_is_wanted(tmp_path):
    absent = message(tmp_path / "absent")
    assert f"no folder {tmp_path / 'absent'}; want LUME's forget.jsonl and retain.jsonl" in absent
    folder = write(tmp_path / "half", retain=None)
    assert f"{folder} has no retain.jsonl; want LUME's" in message(folder)
    complete = write(tmp_path / "whole")
    assert message(complete, "Task1").startswith(
        "data.split: LUME has task1, task2, task3 (null = all"
    )
    assert "retain.jsonl has no rows of task3; want another split" in message(complete, "task3")


def test_an_evaluation_names_its_own_keys(tmp_path):
    rules = make_rules(EvalRules, benchmarks=["lume"])
    assert rules.find_problems() == ["eval.lume.path: benchmark lume needs its data, got null"]
    rules.lume.path = str(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"^eval\.lume\.path: no folder"):
        read_evaluation_sets("lume", rules)
    rules.lume.path, rules.lume.split = write(tmp_path), "task9"
    with pytest.raises(ValueError, match=r"^eval\.lume\.split: LUME has task1"):
        read_evaluation_sets("lume", rules)
    rules.lume.split = "task2"
    assert read_evaluation_sets("lume", rules).name == "lume/task2"


def test_the_preset_takes_the_organisers_model_or_makes_a_target_of_a_preset():
    """Names as llmunlearningsemeval2025.github.io gives them."""
    cfg = load(["lume.yaml", *PLACE])
    organisation = "llmunlearningsemeval2025organization"
    assert cfg.model.path == f"{organisation}/olmo-finetuned-semeval25-unlearning"
    assert cfg.model.tokenizer == "allenai/OLMo-7B-0724-Instruct-hf"
    preset = load(["lume.yaml", *PLACE, "model=smollm2_135m"])
    assert (preset.model.path, preset.model.tokenizer) == ("target", None)
    path = f"{organisation}/olmo-1B-model-semeval25-unlearning"
    small = load(["lume.yaml", *PLACE, f"model.path={path}"])
    assert (small.model.path, small.model.tokenizer) == (path, None)


@pytest.mark.real
def test_the_real_files_have_the_published_numbers_of_rows_and_no_document_twice(shared):
    benchmark = read_lume(str(shared / "lume"))
    assert (len(benchmark.forget), len(benchmark.retain)) == (2732, 2734)
    ids = [s.id for s in benchmark.forget + benchmark.retain]
    assert len(set(ids)) == 5466
    assert not any('"' in id for id in ids)
    sizes = []
    for split in ("task1", "task2", "task3"):
        sets = read_lume(str(shared / "lume"), split).sets
        sizes.append([len(sets[name]) for name in ("verbmem_forget", "knowmem_forget")])
    assert sizes == [[243, 243], [250, 1250], [373, 373]]  # counted with a plain loop over the ids


@pytest.mark.real
def test_every_real_document_is_its_two_halves(shared):
    benchmark = read_lume(str(shared / "lume"))
    documents = {s.id: s.answer for s in benchmark.forget}
    rows = (shared / "lume/forget.jsonl").read_text(encoding="utf-8").split("\n")
    for row in map(json.loads, filter(None, rows)):
        id = "lume/" + row["id"].replace('"', "")
        if id[-3:-1] == "sc":
            assert documents[id].startswith(row["input"])
            assert documents[id].removeprefix(row["input"]).lstrip() == row["output"].lstrip()
        else:
            assert documents[id] == row["output"]
