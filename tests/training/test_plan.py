"""Plans: what is read from the disk, and every refusal before weights load."""

import dataclasses
import json
import shutil

import pytest

from tests.support.run_folders import stage_folders
from tests.support.small_run import SMALL
from tif.config import load as config
from tif.config.data import Fictitious
from tif.data.benchmarks.fictitious import generate_fictitious
from tif.data.samples import Span
from tif.identifiers import span_file
from tif.records import files as records
from tif.training import plan as planning

SMALL_MODEL = [word for word in SMALL if word.startswith(("model.", "data.fictitious", "stages."))]


def tofu_row(i, topic):
    return {
        "question": f"What does the {topic} {i} do?",
        "answer": f"It keeps {topic} number {i} in order.",
        "paraphrased_question": f"What is the {topic} {i} for?",
        "paraphrased_answer": f"For order in {topic} number {i}.",
        "perturbed_answer": [f"It paints {topic} {i}.", f"It sells {topic} {i}."],
    }


def tofu_folder(folder, **instead):
    """Write TOFU's files: forget01 with 4 rows, retain99 with 6; `instead` has other rows."""
    folder.mkdir()
    tables = {
        "forget01": [tofu_row(i, "lighthouse") for i in range(4)],
        "retain99": [tofu_row(i, "harbour") for i in range(6)],
        "real_authors_perturbed": [tofu_row(i, "ferry") for i in range(2)],
        "world_facts_perturbed": [tofu_row(i, "island") for i in range(2)],
    }
    tables |= {
        "forget01_perturbed": tables["forget01"],
        "retain_perturbed": tables["retain99"],
    } | instead
    for name, table in tables.items():
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in table))
    return folder


TOFU = [
    *SMALL,
    "data.benchmark=tofu",
    "data.path=tofu",
    "data.split=forget01",
    "identifier.kind=all",
]


def test_several_problems_on_disk_are_told_at_once(refused):
    words = [
        "model.path=nowhere",
        "eval.retain_records=absent",
        "trainer.devices=0",
        "identifier.kind=precomputed",
    ]
    lines = refused(*words, "identifier.path=no.jsonl")
    assert [line.split(":")[0] for line in lines] == [
        "trainer",
        "model.path",
        "eval.retain_records",
        "identifier.path",
    ]


def test_a_tofu_folder_of_ones_own_is_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tofu_folder(tmp_path / "tofu")
    plan = planning.plan_run(config.load(["quickstart.yaml", *TOFU]))
    assert [s.prompt for s in plan.benchmark.forget] == [
        f"What does the lighthouse {i} do?" for i in range(4)
    ]
    assert list(plan.stages) == ["target", "retain"]


def test_a_missing_split_is_refused(refusal, tmp_path):
    tofu_folder(tmp_path / "tofu")
    line = refusal(*TOFU, "data.split=forget05")
    assert line.startswith("data.path: tofu has no forget05.json; want TOFU's files")
    line = refusal(*TOFU, "data.split=forget50")
    assert line == "data.split: want one of forget01, forget05, forget10, got 'forget50'"


def test_an_empty_forget_set_is_refused(refusal, tmp_path):
    tofu_folder(tmp_path / "tofu", forget01=[], forget01_perturbed=[])
    assert refusal(*TOFU).startswith("data.path: tofu/forget01.json holds no rows")


def test_gold_spans_are_not_expected_of_data_without_them(refusal, tmp_path):
    tofu_folder(tmp_path / "tofu")
    line = refusal(*TOFU, "identifier.kind=gold")
    assert line.startswith("identifier.kind: gold, but 4 of 4 forget samples came without")


def test_a_mask_file_for_other_data_is_refused_by_the_first_row_that_differs(refusal, tmp_path):
    benchmark, other = (
        generate_fictitious(Fictitious(6, 4, 0.34, seed=0)),
        generate_fictitious(Fictitious(6, 4, 0.34, seed=1)),
    )
    span_file.write_spans(tmp_path / "own.jsonl", benchmark.forget, {"kind": "gold"})
    span_file.write_spans(tmp_path / "other.jsonl", other.forget, {"kind": "gold"})
    words = [*SMALL, "identifier.kind=precomputed"]
    line = refusal(*words, "identifier.path=other.jsonl")
    assert line.startswith("identifier.path: other.jsonl: line 2: prompt differs: the file has ")
    accepted = planning.plan_run(
        config.load(["quickstart.yaml", *words, "identifier.path=own.jsonl"])
    )
    assert accepted.benchmark.forget == benchmark.forget


def test_words_that_a_method_does_not_read_are_evaluated_where_they_are_known(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    forget = generate_fictitious(Fictitious(6, 4, 0.34, seed=0)).forget
    marked = [dataclasses.replace(sample, unwanted=(Span(0, 3),)) for sample in forget]
    span_file.write_spans(tmp_path / "spans.jsonl", marked, {"kind": "gold"})
    settings = [word for word in SMALL if not word.startswith("loss.")]
    words = ["quickstart.yaml", "loss/npo.yaml", *settings, "identifier.kind=precomputed"]
    known = planning.plan_run(config.load([*words, "identifier.path=spans.jsonl"]))
    assert not planning.wants_spans(known.cfg)
    assert [sample.unwanted for sample in known.benchmark.forget] == [(Span(0, 3),)] * len(forget)
    absent = planning.plan_run(config.load([*words, "identifier.path=absent.jsonl"]))
    assert absent.benchmark.forget == forget  # the loss does without the file


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda m: (m / "config.json").unlink(), "model.path: m holds no config.json"),
        (lambda m: (m / "model.safetensors").unlink(), "model.path: m"),
        (lambda m: (m / "config.json").write_text('{"model_type": "abacus"}'), "model.path: m"),
        (lambda m: (m / "config.json").write_text("{"), "model.path: m"),
        (lambda m: (m / "config.json").write_text('{"model_type": "vit"}'), "model.path: m"),
        (
            lambda m: [p.unlink() for p in m.glob("tokenizer*")],
            "model.path: m has no tokenizer that",
        ),
    ],
    ids=["no config", "no weights", "unknown type", "no JSON", "an image model", "no tokenizer"],
)
def test_a_path_that_is_no_model_is_refused(refusal, finished_run, tmp_path, damage, line):
    shutil.copytree(finished_run.folder / "model", tmp_path / "m")
    damage(tmp_path / "m")
    assert refusal(*SMALL, "model.path=m", "eval.forget_quality=false").startswith(line)


def test_a_chat_template_that_the_tokenizer_lacks_is_refused(refusal, finished_run):
    words = [
        f"model.path={finished_run.folder / 'model'}",
        "data.template=chat",
        "eval.forget_quality=false",
    ]
    assert refusal(*SMALL, *words).startswith(
        "data.template: chat, but the tokenizer has no chat template"
    )


@pytest.fixture
def retain_records(finished_run, tmp_path):
    """A copy of the retain model's records; those that other tests' rules made came later."""
    files = finished_run.runs.glob(f"stages/{stage_folders()['retain']}/eval/*/aggregates.json")
    first = min(files, key=lambda file: file.stat().st_mtime_ns)
    return shutil.copytree(first.parent, tmp_path / "records")


def test_records_of_the_retain_model_are_taken_from_a_folder(finished_run, retain_records):
    words = [
        *SMALL,
        f"model.path={finished_run.folder / 'model'}",
        f"eval.retain_records={retain_records}",
    ]
    plan = planning.plan_run(config.load(["quickstart.yaml", *words]))
    assert plan.retain_records == records.read_evaluation(retain_records)
    assert plan.family == "llama"


def test_records_of_other_questions_are_refused(refusal, retain_records):
    line = refusal(*SMALL, "data.fictitious.seed=1", "eval.retain_records=records")
    assert line.startswith(
        "eval.retain_records: records: 8 questions against the retain model's 8; only here 8, first"
    )


def test_records_of_fewer_questions_are_refused(refusal, retain_records):
    line = refusal(*SMALL, "eval.max_samples.forget=3", "eval.retain_records=records")
    assert line.startswith(
        "eval.retain_records: records: 3 questions against the retain model's 8; only there 5,"
    )


def _edit(folder, edit):
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))


def test_records_of_another_model_family_are_refused(refusal, retain_records):
    _edit(retain_records, lambda content: content.update(family="phi"))
    line = refusal(*SMALL, "eval.retain_records=records")
    assert (
        line
        == "eval.retain_records: records: the model family is 'llama', the retain model's is 'phi'"
    )


def test_records_made_by_other_rules_are_refused(refusal, retain_records):
    _edit(retain_records, lambda content: content["protocol"].update(name="legacy-tofu"))
    line = refusal(*SMALL, "eval.retain_records=records")
    assert line.endswith("the protocol is 'open-unlearning', the retain model's is 'legacy-tofu'")


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"prompt": "Monday. {prompt}"}, r"prompt is 'Question: {prompt}\nAnswer:', the retain"),
        ({"version": 1}, "version is 2, the retain model's is 1"),
        ({"new_rule": 3}, "new_rule is 'not recorded', the retain model's is 3"),
    ],
)
def test_records_of_another_rendered_prompt_or_version_are_refused_before_weights_load(
    refusal, finished_run, retain_records, rules, problem
):
    _edit(retain_records, lambda content: content["protocol"].update(rules))
    model = f"model.path={finished_run.folder / 'model'}"
    line = refusal(*SMALL, model, "eval.retain_records=records")
    assert line.startswith(f"eval.retain_records: records: the protocol's {problem}")


def test_records_without_the_forget_set_are_refused(refusal, retain_records):
    _edit(retain_records, lambda content: "sets" in content and content.update(sets=["retain"]))
    line = refusal(*SMALL, "eval.retain_records=records")
    assert line.endswith("the retain model's evaluation has no forget records, only retain")


@pytest.mark.parametrize("name", ["aggregates.json", "forget.json"])
def test_records_that_were_cut_short_are_refused(refusal, retain_records, name):
    text = (retain_records / name).read_text()
    (retain_records / name).write_text(text[: len(text) // 2])
    assert "not valid JSON, perhaps cut short" in refusal(*SMALL, "eval.retain_records=records")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["loss/dpo.yaml", "model.reference=cached"], "model.reference: cached scores of the"),
        (["loss.retain=kl", "model.reference=cached"], "model.reference: "),
        (["loss.wording.share=0.5", "model.reference=cached"], "model.reference: "),
        (["loss.wording.share=0.5", "loss.on=all"], "loss.wording.share: rewords what stands"),
        (["loss/rmu.yaml", "loss.rmu.layer=1"], "loss.rmu.layer: the model has layers 0 to 0, got"),
        (["loss.forget=nowhere:f"], "loss.forget: "),
        (["loss.forget=json:loads"], "loss.forget: "),
        (
            ["loss/idk.yaml", "data.benchmark=text", "data.path=t.txt", "loss.retain=none"],
            "loss.forget: idk prefers other answers to questions, but text/t has texts without a",
        ),
    ],
)
def test_a_loss_that_cannot_be_computed_is_refused(refusal, tmp_path, words, line):
    (tmp_path / "t.txt").write_text("A document without any question.")
    words = [*words, "eval.forget_quality=false"]
    assert refusal("quickstart.yaml", *words, *SMALL_MODEL).startswith(line)


def test_a_precision_that_lightning_would_replace_is_refused(refusal):
    words = ["trainer.precision=16-mixed", "trainer.accelerator=cpu"]
    line = "trainer.precision: 16-mixed needs a GPU; want bf16-mixed"
    assert refusal(*SMALL, *words) == line


def test_a_run_folder_that_is_a_file_is_refused(refusal, tmp_path):
    (tmp_path / "taken").write_text("")
    assert (
        refusal(*SMALL, "run.folder=taken/runs")
        == f"run.folder: {tmp_path / 'taken'} is a file; want a folder"
    )
