"""Weights & Biases from offline runs: rows, labels, lineage, what does not leave the machine."""

import json
import signal
from types import SimpleNamespace

import pytest

import tif.evaluate as evaluate
import tif.identify as identify
from tests.support import killed_processes
from tests.support.small_run import SMALL, files, finished, rows
from tests.support.wandb_runs import offline_runs, read_offline_run
from tif import fit
from tif.config import load as config
from tif.config.run import Wandb
from tif.data.benchmarks import read_benchmark
from tif.records.files import read_evaluation
from tif.reports.wandb_content import Piece, flatten_numbers, make_artifact, without_texts
from tif.reports.wandb_run import Labels, RunLogger, log_audit
from tif.training import plan as planning
from tif.training import resume
from tif.training.callbacks.loggers import _make_labels, log_outputs, wandb_loggers

OFFLINE = ["logger.wandb.enabled=true", "logger.wandb.offline=true"]
SECRETS = {"WANDB_API_KEY": "0123456789abcdef" * 2 + "deadbeef", "HF_TOKEN": "hf_" + "s3cret" * 6}


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """The folder of runs of a finished run that was logged offline, and so were its stages."""
    runs = tmp_path_factory.mktemp("logged") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        for name in ("WANDB_DIR", "WANDB_MODE", "WANDB_RUN_ID"):
            patch.delenv(name, raising=False)
        assert fit.main([*SMALL, *OFFLINE, f"run.folder={runs}"]) == 0
    return runs


def stage_of(runs, name):
    (folder,) = runs.glob(f"stages/{name}-*[0-9a-f]")
    return folder


def without_step(row):
    return {name: value for name, value in row.items() if name not in ("epoch", "step")}


def texts_of_data():
    """Return the answers of all samples: what must not leave the machine unasked."""
    benchmark = read_benchmark(config.load(["quickstart.yaml", *SMALL]).data)
    return [sample.answer.encode() for sample in (*benchmark.forget, *benchmark.retain)]


@pytest.mark.slow
def test_every_row_is_logged_once_under_its_stable_names_and_nothing_else_changes(
    logged, tmp_path_factory
):
    folder = logged / "quickstart"
    offline, expected = read_offline_run(folder), rows(folder)
    others = ("trainer/global_step", "charts/")
    shown = [
        {k: v for k, v in row.items() if "/" in k and not k.startswith(others)}
        for row in offline.rows
    ]
    assert shown == [without_step(row) for row in expected]
    assert [row["epoch"] for row in offline.rows] == [row["epoch"] for row in expected]
    assert [row["trainer/global_step"] for row in offline.rows] == [row["step"] for row in expected]
    assert [row["_step"] for row in offline.rows] == list(range(len(expected)))
    assert expected == rows(finished(tmp_path_factory).folder)
    target = stage_of(logged, "target")
    losses = [row["train/loss"] for row in read_offline_run(target).rows]
    assert losses == [row["train/loss"] for row in rows(target)]


@pytest.mark.slow
def test_runs_have_configuration_group_job_type_and_tags(logged):
    run = read_offline_run(logged / "quickstart")
    assert run.config["loss"]["beta"] == 0.3
    assert run.config["environment"]["tif"]
    target, retain = (read_offline_run(stage_of(logged, name)) for name in ("target", "retain"))
    assert target.config["loss"]["forget"] == "ce"
    for offline, job_type in ((run, "unlearn"), (target, "target"), (retain, "retain")):
        assert (offline.run.run_group, offline.run.job_type) == ("quickstart", job_type)
    assert list(run.run.tags) == ["fictitious", "lpl+pl+ce"]
    assert run.run.display_name == "quickstart"
    assert not {"sweep", "variant"} & run.config.keys()
    assert target.run.display_name == stage_of(logged, "target").name
    assert run.run.run_id == json.loads((logged / "quickstart" / "wandb.json").read_text())["id"]


@pytest.mark.slow
def test_the_summary_holds_the_best_epoch_with_its_definition(logged):
    offline = read_offline_run(logged / "quickstart")
    summary = json.loads((logged / "quickstart" / "summary.json").read_text())
    assert {name: offline.summary[f"best/{name}"] for name in summary["best"]} == summary["best"]
    (row,) = [row for row in rows(logged / "quickstart") if row["epoch"] == summary["best"]["epoch"]
              and "choice/eval/score" in row]  # fmt: skip
    assert offline.summary["best/choice/eval/score"] == row["choice/eval/score"]
    assert offline.summary["best/forget/quality"] != row["forget/quality"]  # of the other half
    assert "on one half of the questions" in offline.summary["best/definition"]
    assert {
        m.step_metric
        for name, m in offline.metrics.items()
        if "/" in name and "trainer" not in name
    } == {"epoch"}
    assert [name for name, metric in offline.metrics.items() if metric.summary.max] == [
        "choice/eval/score"
    ]


@pytest.mark.slow
def test_artifacts_lead_from_data_over_spans_and_target_to_model_and_records(logged):
    run, target = (
        read_offline_run(logged / "quickstart"),
        read_offline_run(stage_of(logged, "target")),
    )
    used = [artifact.name for artifact in run.artifacts if artifact.use_after_commit]
    artifact_names = [artifact.name for artifact in run.artifacts if not artifact.use_after_commit]
    name = f"model-{stage_of(logged, 'target').name}"
    assert used == ["data-fictitious", "spans-fictitious", name]
    assert set(artifact_names) == {
        "model-quickstart",
        "records-quickstart",
        *(a.name for a in run.named("report-")),
    }
    # The same content under the same name: W&B takes it for the same version.
    assert {a.digest for a in run.named(name)} == {a.digest for a in target.named(name)}
    assert {a.digest for a in run.named("data-")} == {a.digest for a in target.named("data-")}
    assert [a.use_after_commit for a in target.named(name)] == [False]
    references = target.files(name)
    assert (
        references["model.safetensors"]
        == (stage_of(logged, "target") / "model/model.safetensors").as_uri()
    )
    facts = json.loads(run.named("data-")[0].metadata)
    assert (facts["benchmark"].split("/")[0], facts["forget"]) == ("fictitious", 8)
    aliases = {alias for artifact in run.named("model-quickstart") for alias in artifact.aliases}
    assert {"last", "best"} <= aliases


@pytest.mark.slow
def test_the_last_row_shows_the_charts_of_the_report_as_pictures(logged):
    offline = read_offline_run(logged / "quickstart")
    pictures = {
        name: value for name, value in offline.rows[-1].items() if name.startswith("charts/")
    }
    shown = {name.split("/")[1] for name in pictures}
    assert shown == {"words", "frontier", "ratios", "extraction"}
    for name in shown:
        content = (offline.folder / "files" / pictures[f"charts/{name}/path"]).read_bytes()
        assert content.startswith(b"\x89PNG")
    assert not [name for row in offline.rows[:-1] for name in row if name.startswith("charts/")]
    assert not [
        name
        for row in read_offline_run(stage_of(logged, "target")).rows
        for name in row
        if "charts" in name
    ]


@pytest.mark.slow
def test_no_key_and_no_text_of_the_data_is_written(logged):
    texts = texts_of_data()
    assert len(texts) > 10
    written = [folder for run in logged.rglob("wandb") for folder in [run] if folder.is_dir()]
    assert len(written) == 3
    for folder in written:
        for path, content in files(folder).items():
            assert not [text for text in texts if text in content], path
    for path, content in files(logged).items():
        assert not [name for name, value in SECRETS.items() if value.encode() in content], path


@pytest.mark.slow
def test_a_killed_run_continues_its_own_curve_and_logs_every_step_once(logged):
    """The process is killed in the middle of a row, twice, so that buffered history is lost."""
    where, folder = killed_processes.context(), logged / "killed"
    words = [*SMALL, *OFFLINE, f"run.folder={logged}", "run.name=killed", "logger.wandb.samples=2"]
    for row in (3, 5):
        assert killed_processes.fit(where, words, at=("half a row", row))[0] == -signal.SIGKILL
    first_id = json.loads((folder / "wandb.json").read_text())["id"]
    assert killed_processes.fit(where, words)[0] == 0
    offline, expected = read_offline_run(folder), rows(folder)  # one folder: the others are gone
    assert offline.run.run_id == first_id
    assert [row["_step"] for row in offline.rows] == list(range(len(expected)))
    assert [row["trainer/global_step"] for row in offline.rows] == [row["step"] for row in expected]
    assert [row.get("train/loss") for row in offline.rows] == [
        row.get("train/loss") for row in expected
    ]
    assert expected == rows(logged / "quickstart")
    # The tables of samples are those of the records, also of the epochs before the kill.
    tables = offline.tables()
    assert sorted(tables) == [0, 1, 2]
    for epoch, table in tables.items():
        known = {
            record.id: record
            for record in read_evaluation(folder / f"eval/{epoch}").sets["forget"].records
        }
        cells = [dict(zip(table["columns"], line, strict=True)) for line in table["data"]]
        forget = [cell for cell in cells if cell["set"] == "forget"]
        assert len(forget) == 2
        for cell in forget:
            assert known[cell["id"]].generated == cell["model's answer"]
            assert cell["unwanted"]
            assert cell["unwanted"].split(", ")[0] in cell["answer"]


@pytest.mark.slow
def test_evaluate_and_identify_log_runs_of_their_own(logged, tmp_path, capsys):
    run = logged / "quickstart"
    words = [
        f"records={run / 'eval/2'}",
        f"out={tmp_path / 'evaluations'}",
        "logger.wandb.samples=1",
    ]
    assert evaluate.main([*words, *OFFLINE, "draws=100"]) == 0
    offline = read_offline_run(tmp_path / "evaluations")
    assert (offline.run.run_group, offline.run.job_type) == ("quickstart", "evaluate")
    (row,) = offline.rows
    assert row["utility/model"] == rows(run)[-1]["utility/model"]
    table = json.loads((offline.folder / "files" / row["numbers/path"]).read_text())
    assert table["columns"] == ["benchmark", "metric", "better", "value", "low", "high", "over"]
    assert "forget/probability" in [line[1] for line in table["data"]]

    spans = tmp_path / "spans" / "gold.jsonl"
    words = [*SMALL, f"run.folder={logged}", f"out={spans}", "logger.wandb.samples=3"]
    spans.parent.mkdir()
    assert identify.main([*words, *OFFLINE]) == 0
    offline = read_offline_run(spans.parent)
    assert (offline.run.job_type, list(offline.run.tags)) == ("identify", ["fictitious", "gold"])
    assert [(a.name, a.use_after_commit) for a in offline.artifacts if a.type != "run_table"] == [
        ("data-fictitious", True),
        ("spans-fictitious", False),
    ]
    assert offline.files("spans-")["gold.jsonl"] == spans.as_uri()
    # The spans that the run used are those: the same fingerprint.
    facts = [
        json.loads(r.named("spans-")[0].metadata)["fingerprint"]
        for r in (offline, read_offline_run(run))
    ]
    assert facts[0] == facts[1]


@pytest.mark.slow
def test_an_audit_is_in_the_group_of_its_run_and_names_its_model(logged):
    run = logged / "quickstart"
    content = {
        "models": {"unlearned": str(run / "model")},
        "attacks": {"prefix": {"leak": 0.25, "curve": [1, 2]}, "sample": {"leak": None}},
    }
    log_audit(Wandb(enabled=True, offline=True), run / "audit", {"draws": 100}, content)
    offline = read_offline_run(run / "audit")
    assert (offline.run.run_group, offline.run.job_type) == ("quickstart", "audit")
    assert list(offline.run.tags) == ["prefix", "sample"]
    (row,) = offline.rows
    values = {name: value for name, value in row.items() if name.startswith("audit/")}
    assert values == {"audit/prefix/leak": 0.25}
    (model,) = offline.named("model-")
    digests = {
        a.digest for a in read_offline_run(run).named("model-quickstart") if "last" in a.aliases
    }
    assert (model.use_after_commit, {model.digest}) == (True, digests)


def test_the_runs_of_a_sweep_and_their_stages_are_in_one_group(tmp_path):
    words = [*SMALL, f"run.folder={tmp_path}", "run.name=methods/npo/seed1"]
    plan = planning.plan_run(config.load(["quickstart.yaml", *words]))
    labels = _make_labels(plan, tmp_path / "methods/npo/seed1")
    assert labels == Labels(
        "methods/npo/seed1", "methods", "unlearn", ["fictitious", "lpl+pl+ce", "methods", "npo"]
    )
    for name, stage in plan.stages.items():
        labels = _make_labels(stage, stage.folder)
        assert (labels.group, labels.job_type) == ("methods", name)


@pytest.fixture
def variants(tmp_path):
    """Plans and folders of two runs of a sweep, each with a model, records and a report."""
    runs = []
    for variant in ("lr=0.1,beta=0.3", "npo"):
        name = f"methods/{variant}/seed0"
        plan = planning.plan_run(config.load(["quickstart.yaml", *SMALL, *OFFLINE,
                                              f"run.folder={tmp_path}",
                                              f"run.name={name}"]))  # fmt: skip
        folder = tmp_path / name
        for part in ("model", "eval/2"):
            (folder / part).mkdir(parents=True)
        (folder / "config.yaml").write_text(resume.config_text(plan.cfg))
        (folder / "report.html").write_text("a page")
        runs.append((plan, folder))
    return runs


def test_artifacts_of_a_sweeps_runs_are_named_by_sweep_and_variant(variants):
    names = []
    for plan, folder in variants:
        pieces = []
        logger = SimpleNamespace(
            log_charts=list, log_pieces=lambda _, outputs, pieces=pieces: pieces.extend(outputs)
        )
        log_outputs([logger], plan, folder, [])
        names += [make_artifact(piece, []).name for piece in pieces]
    expected = []
    for run in ("methods-lr-0.1-beta-0.3-seed0", "methods-npo-seed0"):
        expected += [f"{kind}-{run}" for kind in ("model", "records", "report")]
    assert names == expected


def test_artifacts_with_long_names_differ_within_128_characters():
    long = [
        make_artifact(Piece(f"records-{'v' * 150}-seed{seed}", "records", {}), []).name
        for seed in range(2)
    ]
    assert len(set(long)) == 2
    assert [len(name) for name in long] == [128, 128]


@pytest.mark.slow
def test_the_configuration_of_a_sweeps_run_names_sweep_and_variant(variants):
    plan, folder = variants[0]
    with wandb_loggers(plan, folder) as loggers:
        assert len(loggers) == 1
    keys = read_offline_run(folder).config
    assert (keys["sweep"], keys["variant"]) == ("methods", "lr=0.1,beta=0.3")


def test_steps_that_the_server_has_are_not_sent_again(tmp_path):
    logger = RunLogger(Wandb(enabled=True), tmp_path, Labels("a", "a", "unlearn"))
    sent = []
    logger._experiment = SimpleNamespace(
        starting_step=2, log=lambda values, step: sent.append((step, values))
    )
    logger.log_rows([{"epoch": 1, "step": step, "train/loss": float(step)} for step in range(3)])
    logger.log_metrics({"epoch": 1.0, "train/loss": 3.0}, step=3)
    assert [
        (step, values["train/loss"], values["trainer/global_step"]) for step, values in sent
    ] == [
        (2, 2.0, 2),
        (3, 3.0, 3),
    ]


def test_the_best_epoch_so_far_is_in_the_summary_while_the_run_goes_on(tmp_path):
    logger = RunLogger(
        Wandb(enabled=True), tmp_path, Labels("a", "a", "unlearn"), best="eval/score"
    )
    defined, summary = {}, {}
    logger._experiment = SimpleNamespace(
        starting_step=0, log=lambda values, step: None, summary=summary,
        define_metric=lambda name, **options: defined.update({name: options}),
    )  # fmt: skip
    best = []
    for epoch, score in enumerate([0.9, 0.2, 0.5, 0.4]):  # epoch 0 is no candidate
        values = {"epoch": float(epoch), "choice/eval/score": score, "retain/loss": 1.0}
        logger.log_metrics(values, step=epoch)
        best.append(summary.get("best/epoch"))
    assert best == [None, 1, 2, 2]
    assert summary["best/choice/eval/score"] == 0.5
    assert defined == {
        "choice/eval/score": {"step_metric": "epoch", "summary": "max"},
        "retain/loss": {"step_metric": "epoch", "summary": None},
    }


def test_listed_words_are_sent_only_where_samples_are():
    keys = {"identifier": {"kind": "words", "words": ["Basil", "Kuwait"]}, "loss": {"beta": 1}}
    hidden = without_texts(keys, samples=0)
    assert hidden["identifier"] == {
        "kind": "words",
        "words": "2 entries, not sent (logger.wandb.samples=0)",
    }
    assert "command" not in hidden["environment"]
    assert without_texts(keys, samples=1)["identifier"] == keys["identifier"]


def test_numbers_of_nested_results_are_named_by_their_path():
    content = {
        "attacks": {"relearn": {"leak": 0.25, "name": "x", "draws": [1, 2]}, "nan": float("nan")},
        "ok": True,
    }
    assert flatten_numbers(content, "audit") == {"audit/attacks/relearn/leak": 0.25}


@pytest.mark.parametrize("words", [["report"], ["model", "records"], ["spans"]])
def test_texts_are_not_uploaded_where_no_text_may_leave_the_machine(words, refusal):
    line = refusal(f"logger.wandb.upload=[{','.join(words)}]")
    assert line.startswith(
        f"logger.wandb.upload: {words[-1]} hold texts of the data, and samples=0"
    )


def test_wandb_without_a_login_stops_a_run_before_its_stages(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    words = ["logger.wandb.enabled=true", f"run.folder={tmp_path / 'runs'}"]
    assert fit.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("logger.wandb.enabled: nobody is logged in to W&B; want WANDB_API_KEY")
    assert not (tmp_path / "runs").exists()
    words = [f"records={tmp_path}", "logger.wandb.enabled=true"]
    assert evaluate.main(words) == 2
    assert "nobody is logged in to W&B" in capsys.readouterr().err
    assert not offline_runs(tmp_path)
