"""tif audit on a finished run: its models are known, its results kept, its page written."""

import contextlib
import io
import json
import pathlib
import shutil

import pytest

from tests.support import small_run
from tif import fit
from tif.audit import attacks
from tif.audit import command as audit
from tif.audit.keys import make_settings
from tif.audit.run import plan_run_audit
from tif.config import load
from tif.config.registry import entries


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A copy of the finished run and its stages, so that an audit may write beside them."""
    return small_run.copied_run(tmp_path_factory)


@pytest.fixture(scope="module")
def content(runs):
    """What the audit by one attack prints as JSON."""
    return run_json(runs / "quickstart", "attacks=prefix")


def run_json(*words):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert audit.main([*map(str, words), "--json"]) == 0
    (content,) = json.loads(output.getvalue()).values()
    return content


def refused(capsys, *words):
    assert audit.main([*map(str, words)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()


def test_every_attack_registers_itself_in_a_file_of_its_own():
    files = {path.stem for path in pathlib.Path(attacks.__file__).parent.glob("*.py")} - {
        "__init__"
    }
    assert set(entries("attack")) == files
    assert {attack.module for attack in entries("attack").values()} == {
        f"tif.audit.attacks.{name}" for name in files
    }


def test_an_audit_makes_all_attacks_but_membership_unless_some_are_named():
    assert set(make_settings().attacks) == set(entries("attack")) - {"membership"}


def test_a_runs_three_models_are_known(runs, content):
    stage = {
        name: next(runs.glob(f"stages/{name}-*[0-9a-f]/model")) for name in ("target", "retain")
    }
    unlearned = runs / "quickstart" / "model"
    assert content["models"] == {
        "target": str(stage["target"]), "unlearned": str(unlearned), "retain": str(stage["retain"]),
    }  # fmt: skip
    assert len(content["attacks"]["prefix"]["rows"]) == 9
    assert content["attacks"]["prefix"]["questions"] == 8


def test_results_lie_in_the_runs_folder_and_are_not_made_again(runs, content, monkeypatch):
    folder = runs / "quickstart" / "audit"
    assert len(list(folder.glob("prefix/*.json"))) == 1
    assert len(list(folder.glob("model-*/prefix/*.json"))) == 2  # target and retain model
    assert not list(runs.glob("stages/*/audit"))
    page = (runs / "quickstart" / "audit" / "audit.md").read_text()
    assert "| prefix: any prefix |" in page
    monkeypatch.setattr("tif.audit.answers.answer_greedily", None)
    assert run_json(runs / "quickstart", "attacks=prefix") == content


def test_a_folder_of_a_sweep_may_hold_an_equals_sign(runs, content):
    variant = runs / "best=score"
    shutil.copytree(runs / "quickstart", variant / "seed0", ignore=shutil.ignore_patterns("audit"))
    environment = variant / "seed0" / "env.json"
    environment.write_text(environment.read_text().replace('"../stages/', '"../../stages/'))
    for words in ([variant / "seed0"], [variant]):
        result = run_json(*words, "attacks=prefix")
        assert result["models"]["target"] == content["models"]["target"]
        assert result["attacks"]["prefix"]["rows"] == content["attacks"]["prefix"]["rows"]
    shutil.rmtree(variant)


def test_a_changed_budget_is_another_result(runs, content):
    run_json(runs / "quickstart", "attacks=prefix", "prefix.shots=1")
    assert len(list(runs.glob("quickstart/audit/prefix/*.json"))) == 2


def test_three_checkpoints_give_what_their_run_gives(runs, content, tmp_path):
    paths = {key: content["models"][role] for key, role in
             (("model.path", "unlearned"), ("target", "target"),
              ("retain_model", "retain"))}  # fmt: skip
    copies = {}
    for key, path in paths.items():  # without a run around them
        copies[key] = tmp_path / key
        shutil.copytree(path, copies[key])
    fictitious = ("authors=6", "questions_per_author=4", "forget_share=0.34")
    words = [f"data.fictitious.{word}" for word in fictitious]
    words += [f"{key}={path}" for key, path in copies.items()]
    repeated = run_json(
        *words, "attacks=prefix", "eval.max_new_tokens=8", f"out={tmp_path / 'out'}", "device=cpu"
    )
    assert repeated["attacks"] == content["attacks"]
    assert len(list((tmp_path / "out").glob("*/prefix/*.json"))) == 3


def test_wrong_words_stop_before_anything_loads(capsys, runs, tmp_path):
    run = runs / "quickstart"
    assert refused(capsys, run, "attacks=prefx") == [
        f"attacks: want some of {', '.join(entries('attack'))}, got prefx"
    ]
    assert refused(capsys, run, "prefix.shot=2") == [
        "prefix.shot: unknown key; did you mean prefix.shots?"
    ]
    assert "no run folder and no finished runs in it" in refused(capsys, tmp_path)[0]
    lines = refused(capsys, "model.path=here")
    assert [line.partition(":")[0] for line in lines] == ["target", "retain_model"]
    lines = refused(capsys, run, f"target={tmp_path / 'nothing'}")
    assert lines[0].startswith("target: no folder")


def test_stages_are_found_by_the_run_also_where_another_tif_would_make_others(
    runs, tmp_path, monkeypatch
):
    copy = tmp_path / "moved"
    shutil.copytree(runs, copy)
    monkeypatch.setattr("tif.training.plan.plan_stage", None)  # whose hash knows keys and version
    plan = plan_run_audit(copy / "quickstart")
    for role, name in (("target", "target"), ("retain_model", "retain")):
        (stage,) = copy.glob(f"stages/{name}-*[0-9a-f]/model")
        assert getattr(plan.settings, role) == str(stage)


def test_a_run_whose_stage_is_gone_says_what_makes_it(capsys, runs, tmp_path):
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    for file in copy.rglob("config.yaml"):
        file.write_text(file.read_text().replace(str(runs), str(copy)))
    shutil.rmtree(next(copy.glob("stages/retain-*[0-9a-f]")))
    (line,) = refused(capsys, copy / "quickstart")
    assert "want tif fit RUN/config.yaml stage=retain, or retain_model=MODEL" in line


def test_texts_without_questions_are_refused(capsys, runs, tmp_path):
    (tmp_path / "forget.txt").write_text("Ann lives in Rome.")
    words = ("data.benchmark=text", f"data.path={tmp_path / 'forget.txt'}")
    (line,) = refused(capsys, runs / "quickstart", *words)
    assert line == (
        "data.benchmark: text has documents without questions; "
        "an audit wants questions with answers"
    )


def test_a_run_may_end_with_its_audit(runs):
    words = [
        *small_run.SMALL,
        f"run.folder={runs}",
        "run.name=attacked",
        "eval.audit=[prefix]",
        "trainer.max_epochs=1",
    ]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert fit.main(words) == 0
    assert "prefix: any prefix" in output.getvalue()
    folder = runs / "attacked"
    assert list(json.loads((folder / "audit" / "audit.json").read_text())["attacks"]) == ["prefix"]
    assert '<section id="audit">' in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["eval.audit=[prefix]", "run.export=false"],
            "eval.audit: attacks the exported model; want run.export=true",
        ),
        (
            ["eval.audit=[prefix]", "eval.retain_records=/x"],
            "eval.audit: needs questions and the retain model",
        ),
        (["eval.audit=[prfix]"], "eval.audit: want some of depth"),
        (
            ["eval.best=retain_distance", "eval.forget_quality=false"],
            "eval.best: retain_distance compares answers",
        ),
    ],
)
def test_an_audit_that_cannot_be_is_refused_with_the_configuration(capsys, words, line):
    assert fit.main(words) == 2
    assert capsys.readouterr().err.startswith(line)


def test_stages_of_a_run_that_ranks_by_distance_need_no_retain_model():
    cfg = load.load(["quickstart.yaml", "eval.best=retain_distance", "eval.audit=[prefix]"])
    assert cfg.eval.best == "retain_distance"


@pytest.mark.parametrize("damage", ["{", "[]", "", "model_max_length", "eos_token"])
def test_a_damaged_tokenizer_of_a_stage_is_one_line(capsys, runs, tmp_path, damage):
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    for file in copy.rglob("config.yaml"):
        file.write_text(file.read_text().replace(str(runs), str(copy)))
    file = next(copy.glob("stages/retain-*[0-9a-f]/model")) / "tokenizer_config.json"
    is_key, keys = len(damage) > 2, json.loads(file.read_text())
    file.write_text(json.dumps(keys | {damage: []}) if is_key else damage)
    (line,) = refused(capsys, copy / "quickstart", "attacks=[prefix]", "prefix.shots=1")
    assert line.startswith("retain_model: ")


def test_the_place_of_a_benchmark_is_named_by_the_keys_of_tif_evaluate():
    words = ["eval.tofu.path=/data", "eval.muse_news.path=/news", "eval.lume.split=task1"]
    settings = load.read(make_settings, [*words, "model.path=m", "target=t", "retain_model=r"])
    assert (settings.eval.tofu.path, settings.eval.lume.split) == ("/data", "task1")
