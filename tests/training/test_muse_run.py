"""tif.fit on MUSE and on texts of your own: stages, VerbMem, KnowMem and PrivLeak by epoch."""

import json

import pytest

import tif.evaluate as evaluate
from tests.support.muse_corpus import corpus
from tests.support.small_run import SMALL, rows
from tif import fit
from tif.metrics import overall
from tif.records import files as records

PEOPLE = ("Mira Dell", "Jaime Vasquez", "Ann Ode", "Tom Field", "Ida Brown", "Lea Stone")
PLACES = ("Oslo", "Basel", "Lima", "Cork", "Turin", "Graz")


def article(i):
    person, place = PEOPLE[i], PLACES[i]
    born = f"{person} was born in {place} in 19{i}1."
    return f"{born} She wrote about {place} all her life, {person} said."


def question(i):
    return {"question": f"Where was {PEOPLE[i]} born?", "answer": PLACES[i]}


FILES = {
    "raw/forget.json": [article(0), article(1)],
    "raw/retain1.json": [article(2)],
    "raw/retain2.txt": article(3),
    "verbmem/forget.json": [{"prompt": article(i)[:60], "gt": article(i)[60:]} for i in (0, 1)],
    "knowmem/forget_qa.json": [question(0), question(1)],
    "knowmem/forget_qa_icl.json": [question(4)],
    "knowmem/retain_qa.json": [question(2), question(3)],
    "knowmem/retain_qa_icl.json": [question(5)],
    "privleak/forget.json": [article(0), article(1)],
    "privleak/holdout.json": [article(4), article(5)],
}
KEYS = [
    "quickstart.yaml", *SMALL, "data.benchmark=muse", "identifier.kind=random", "loss.retain=ce",
    "data.max_tokens=32", "eval.every_n_epochs=0", "run.keep_checkpoints=0", "trainer.max_epochs=1",
    "stages.target.trainer.max_epochs=2",
    "stages.retain.trainer.max_epochs=2",
]  # fmt: skip


def test_a_run_on_muse_is_measured_against_the_retain_model(tmp_path, capsys):
    path = corpus(tmp_path / "news", **FILES)
    assert fit.main([*KEYS, f"data.path={path}", f"run.folder={tmp_path / 'runs'}"]) == 0
    folder = tmp_path / "runs" / "quickstart"
    evaluated = [row for row in rows(folder) if "muse/privleak" in row]
    assert [row["epoch"] for row in evaluated] == [0, 1]
    for row in evaluated:
        assert {
            "muse/verbmem_forget",
            "muse/knowmem_forget",
            "muse/knowmem_retain",
            "membership/min_k",
            "words/unwanted",
            "words/general",
        } <= row.keys()
    # The row's numbers are those of its records and of the retain stage's, by the same rules.
    (retain,) = (tmp_path / "runs" / "stages").glob("retain-*/eval/*")
    ours, theirs = records.read_evaluation(folder / "eval" / "1"), records.read_evaluation(retain)
    expected = overall.aggregate(ours, theirs)
    assert {name: evaluated[1][name] for name in expected} == pytest.approx(expected)
    assert ours.protocol["name"] == "muse"
    assert "PrivLeak" in capsys.readouterr().out
    # The command says the same of the run's records, with intervals.
    words = [f"records={folder / 'eval' / '1'}", f"retain_records={retain}", "draws=100", "--json"]
    assert evaluate.main(words) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["metrics"]["muse/privleak"] == pytest.approx(evaluated[1]["muse/privleak"])
    assert results["groups"]["privleak_forget"] == {"document": 2}
    low, high = results["intervals"]["membership/min_k"]
    assert low <= results["metrics"]["membership/min_k"] <= high
    assert results["intervals"]["muse/privleak"] is None  # without one of two, the AUC is 0


@pytest.mark.parametrize(
    ("words", "files", "line"),
    [
        (
            ["data.path=null"],
            {},
            "data.path: muse needs a folder of News or Books, or the hub name muse-bench/MUSE-News",
        ),
        (["data.split=forget01"], {}, "data.split: MUSE has forget, scal_1, "),
        (
            ["eval.retain_records=null"],
            {},
            "eval.retain_records: PrivLeak needs the retain model's records, got null",
        ),
        (
            [],
            {"raw/retain1.json": None},
            "loss.retain: muse/news has no retain samples; want loss.retain=none",
        ),
        (
            [],
            {"privleak/holdout.json": None},
            "eval.forget_quality: PrivLeak needs privleak_holdout, which muse/news does not have",
        ),
    ],
)
def test_what_muse_lacks_is_told_before_weights_load(tmp_path, capsys, words, files, line):
    path = corpus(tmp_path / "news", **FILES | files)
    assert fit.main([*KEYS, f"data.path={path}", f"run.folder={tmp_path / 'runs'}", *words]) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_text_to_forget_and_to_keep_is_noted_before_the_first_step(tmp_path, capsys):
    (tmp_path / "forget.json").write_text(json.dumps([article(0), question(1)]))
    (tmp_path / "retain.json").write_text(json.dumps([article(2), article(0)]))
    words = ["data.benchmark=text", f"data.path={tmp_path}", f"run.folder={tmp_path / 'runs'}"]
    assert fit.main([*KEYS, *words, "eval.enabled=false", "trainer.max_epochs=1"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert "optimizer steps planned" in first
    assert second.startswith("note: also in the forget set: 1 of 2 retain texts, the first at ")
    assert "retain.json: row 2" in second


def test_texts_of_ones_own_have_the_same_metrics(tmp_path, capsys):
    for name, members in (("forget", (0, 1)), ("retain", (2, 3)), ("holdout", (4, 5))):
        content = [article(i) for i in members] + [question(i) for i in members]
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    words = [
        "data.benchmark=text",
        f"data.path={tmp_path}",
        f"run.folder={tmp_path / 'runs'}",
        "eval.before_training=false",
    ]
    assert fit.main([*KEYS, *words]) == 0
    capsys.readouterr()
    (row,) = [row for row in rows(tmp_path / "runs" / "quickstart") if "muse/privleak" in row]
    assert {
        "muse/verbmem_forget", "muse/verbmem_retain", "muse/knowmem_forget",
        "muse/knowmem_retain", "membership/zlib",
    } <= row.keys()  # fmt: skip
