"""`tif fit`: exit codes, files and output; the rest of a run is in tests/training."""

import shutil

import pytest

from tests.support.small_run import SMALL, files, rows
from tif import fit
from tif.config import load as config
from tif.records import files as records

SETS = ("forget", "retain", "real_authors", "world_facts")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["loss.beat=1"], "loss.beat: unknown key; did you mean loss.beta?"),
        (["loss.beta=0"], "loss.beta: must be > 0, got 0.0"),
        (["eval.retain_records=null"], "eval.retain_records: forget quality needs the retain"),
        (["model.path=nowhere"], "model.path: no folder nowhere; want a Hugging Face folder"),
        (["model.init.hiden_size=8"], "stages.target.model.init: LlamaConfig has no hiden_size"),
        (["data.template=chat"], "stages.target.data.template: chat, but a tokenizer made for"),
        (
            ["data.benchmark=tofu", "data.path=nowhere"],
            "data.path: no folder nowhere; want a folder of TOFU's JSON",
        ),
        (["stage=traget"], "stage: unknown stage 'traget'; this config can make: target, retain"),
        (
            ["quickstat.yaml"],
            "quickstat.yaml: no such file here or among tif's own configs; did you mean quickstart",
        ),
        (["trainer.precision=12-true"], "trainer.precision: want one of 32-true, bf16-mixed,"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line_and_exit_code_2_before_weights_load(refusal, words, line):
    assert refusal(*words).startswith(line)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("loss.beta=x", "loss.beta"),
        ("eval.retain_records=nowhere", "eval.retain_records"),
        ("model.path=./nowhere", "model.path"),
        ("model.init.num_attention_heads=3", "stages.target.model.init"),
        ("model.attention=fast", "stages.target.model.init"),
        ("identifier.kind=precomputed identifier.path=nowhere", "identifier.path"),
        ("data.fictitious.forget_share=0.01", "data.fictitious.forget_share"),
        ("data.fictitious.forget_share=1", "data.fictitious.forget_share"),
        ("data.benchmark=tofu data.path=./a/b", "data.path"),
        ("stages.target.loss.beat=1", "stages.target.loss.beat"),
        ("stages.target.model.path=nowhere", "stages.target.model.path"),
        ("trainer.accelerator=abacus", "trainer"),
        ("trainer.devices=0", "trainer"),
        ("trainer.strategy=hope", "trainer"),
    ],
)
def test_other_wrong_input_is_one_line_that_names_the_key(refusal, words, key):
    assert refusal(*words.split()).startswith(f"{key}: ")


def test_an_override_that_ends_in_yaml_is_no_file(refusal):
    line = refusal("eval.retain_records=old.yaml")
    assert line.startswith("eval.retain_records: old.yaml: want the eval folder")


def test_a_finished_run_leaves_these_files(finished_run):
    evaluated = {
        f"eval/{epoch}/{name}.json"
        for epoch in (0, 1, 2, "retain_model")
        for name in (*SETS, "forget_paraphrased", "aggregates")
    }
    expected = evaluated | {
        "config.yaml", "env.json", "metrics.jsonl", "eval/tokens.json", "summary.json",
        "times.json", "report.html",
        ".lock", "checkpoints/epoch=2-step=4.ckpt",
    }  # fmt: skip
    exported = (
        "README.md", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    )  # fmt: skip
    # A model this small scores the same after both epochs: the first is kept as the best.
    expected |= {f"{folder}/{name}" for folder in ("model", "model_best") for name in exported}
    assert {str(path) for path in files(finished_run.folder)} == expected


def test_a_run_ends_with_its_table_its_generations_and_its_folder(finished_run):
    for text in (
        "stage target: ",
        "stage retain: ",
        "evaluating the retain model",
        "before",
        "retain",
    ):
        assert text in finished_run.output
    assert "Forget questions, before and after" in finished_run.output
    assert f"run folder: {finished_run.folder}" in finished_run.output.splitlines()


def test_the_same_command_again_reuses_the_stages_and_gives_the_same_numbers(finished_run, capsys):
    before = {
        p: p.stat().st_mtime_ns
        for p in (finished_run.runs / "stages").rglob("*")
        if p.suffix != ".lock"
    }
    assert fit.main([*SMALL, f"run.folder={finished_run.runs}"]) == 0
    second = finished_run.runs / "quickstart-2"
    assert capsys.readouterr().out.count("(made before)") == 2
    assert {
        p: p.stat().st_mtime_ns
        for p in (finished_run.runs / "stages").rglob("*")
        if p.suffix != ".lock"
    } == before
    assert rows(second) == rows(finished_run.folder)
    assert (second / "model/model.safetensors").read_bytes() == (
        finished_run.folder / "model/model.safetensors"
    ).read_bytes()
    for epoch in range(3):
        for name in SETS:
            actual, expected = (
                records.read_evaluation(f / "eval" / str(epoch)).sets[name]
                for f in (second, finished_run.folder)
            )
            assert actual == expected
    shutil.rmtree(second)


def test_the_configuration_in_the_run_folder_repeats_the_run(finished_run):
    path = finished_run.folder / "config.yaml"
    assert path.read_text().startswith(f"# tif fit {path}\n")
    assert config.load([str(path)]) == config.load(
        ["quickstart.yaml", *SMALL, f"run.folder={finished_run.runs}"]
    )


def test_a_stage_can_be_made_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit.main([*SMALL, "stage=target", "stages.target.trainer.max_epochs=1"]) == 0
    stages = [p.parent.name.split("-")[0] for p in (tmp_path / "runs").rglob("summary.json")]
    assert stages == ["target"]
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["stages"]


@pytest.mark.parametrize(
    "words",
    [["data.benchmark=text", "data.path="], ["run.folder="],
     ["identifier.kind=precomputed", "identifier.path="]],
)  # fmt: skip
def test_a_path_that_no_file_can_have_is_refused_in_one_line(words, capsys):
    assert fit.main(["quickstart.yaml", *words[:-1], words[-1] + "a" * 300]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("File name too long; want another path")
