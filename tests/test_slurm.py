"""The templates of slurm/ on a real controller: arrays, a chain, preemption, the time limit.

All jobs are submitted at once and waited for once; most of them sleep.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import tif.evaluate as evaluate
import tif.identify as identify
from tests.support import killed_processes
from tests.support.hangs import HANG, wait_until
from tests.support.small_run import SMALL, files, finished, rows
from tests.support.tofu_files import FILES as TOFU
from tif.records import run_folder
from tif.training import checkpoints

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
ROOT = pathlib.Path(__file__).parents[1]
SMALL_JOB = ["--gpus-per-node=0", "--mem=1G", "--cpus-per-task=1"]
# Four steps an epoch, two epochs; a loss that sleeps, so that there is time to interrupt.
SLOW = [
    *SMALL, "loss.forget=tests.support.slow_loss:lpl", "data.batch_size=2",
    "stages.target.data.batch_size=4", "stages.target.loss.forget=ce",
    "stages.retain.loss.forget=ce", "eval.forget_quality=false",
    "eval.max_new_tokens=4", "eval.max_samples.forget=3", "eval.max_samples.retain=2",
    "eval.max_samples.real_authors=1", "eval.max_samples.world_facts=1",
]  # fmt: skip
ENV = {
    "PYTHON": sys.executable,
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def call(*words, **env):
    """Output of a command, which must not fail."""
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | ENV | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def submit(folder, template, *words, **env):
    """Id of a job that writes to <folder>/<id>.log."""
    options = [word for word in words if word.startswith("--")]
    rest = [word for word in words if word not in options]
    command = [
        "sbatch",
        "--parsable",
        *SMALL_JOB,
        *options,
        f"--output={folder}/%j.log",
        f"slurm/{template}",
        *rest,
    ]
    return call(*command, **env)


def state(job):
    """State and exit code of a job (all tasks of an array)."""
    lines = call("scontrol", "show", "job", job, "--oneliner").splitlines()
    fields = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
    return [
        (attempt["JobState"], attempt["ExitCode"], int(attempt["Restarts"])) for attempt in fields
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where runs go, with the session's stages and a link `target`; skips without a controller."""
    if shutil.which("scontrol") is None or "UP" not in subprocess.run(
        ["scontrol", "ping"], capture_output=True, text=True, check=False
    ).stdout:  # fmt: skip
        pytest.skip("no SLURM controller answers")
    prepared = tmp_path_factory.mktemp("slurm")
    run = finished(tmp_path_factory)
    shutil.copytree(run.runs / "stages", prepared / "stages")
    (prepared / "target").symlink_to(prepared / "stages" / run.target.name)
    return prepared


def evaluation(folder, out):
    """Words of tif evaluate on the session's target model."""
    (folder / "tofu").mkdir(exist_ok=True)
    for name, table in TOFU.items():
        (folder / "tofu" / f"{name}.json").write_text("\n".join(json.dumps(row) for row in table))
    return [f"model.path={folder}/target/model", f"eval.tofu.path={folder}/tofu",
            "eval.tofu.split=forget01", f"out={folder}/{out}", "eval.max_new_tokens=4",
            "draws=100", "device=cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def jobs(folder):
    """Ids of all jobs by name, each of them over."""
    words = [*SLOW, f"run.folder={folder}"]
    sweep_file = folder / "four.yaml"
    base = [*SMALL, f"run.folder={folder}", "run.export=false", "trainer.max_epochs=1"]
    grid = "seeds: [0]\ngrid: {loss.beta: [0.1, 0.2, 0.3, 0.4]}\n"
    sweep_file.write_text(f"name: four\nbase: {['quickstart.yaml', *base]!r}\n{grid}")
    ids = {
        "preempted": submit(folder, "fit.sbatch", *words, "run.name=preempted", TIF_TEST_DELAY="3"),
        "late": submit(
            folder,
            "fit.sbatch",
            "--time=2",
            "--signal=USR1@70",
            *words,
            "run.name=late",
            TIF_TEST_DELAY="8",
        ),
    }
    ids |= {
        "evaluated": submit(
            folder, "evaluate.sbatch", "--ntasks-per-node=2", *evaluation(folder, "evaluated")
        ),
        "identified": submit(
            folder, "identify.sbatch", "identifier.kind=gold", f"out={folder}/spans.jsonl"
        ),
    }
    args = f"{' '.join(SMALL_JOB)} --output={folder}/%j.log"
    chain = call("slurm/chain.sh", str(sweep_file), SBATCH_ARGS=args)
    ids |= dict(zip(("target", "retain", "array", "table"), chain.split(), strict=True))
    begun = folder / "preempted" / "metrics.jsonl"
    wait_until(
        lambda: begun.exists() and len(rows(begun.parent)) > 2,
        lambda: log(folder, ids["preempted"]),
        seconds=2 * HANG,
    )
    call("scontrol", "requeue", ids["preempted"])
    over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
    for name, job in ids.items():
        wait_until(
            lambda job=job: {s for s, *_ in state(job)} <= over,
            lambda job=job, name=name: (name, state(job)),
            seconds=3 * HANG,
        )
    return ids


def log(folder, job):
    return "".join(path.read_text() for path in sorted(folder.glob(f"{job}*.log")))


@pytest.fixture(scope="module")
def alone(folder):
    """The same run, disturbed by nobody."""
    assert (
        killed_processes.fit(
            killed_processes.context(), [*SLOW, f"run.folder={folder}", "run.name=alone"]
        )[0]
        == 0
    )
    return folder / "alone"


def same(actual, expected):
    weights = pathlib.Path("model/model.safetensors")
    assert (actual / weights).read_bytes() == (expected / weights).read_bytes()
    assert rows(actual) == rows(expected)
    first, second = (files(path / "eval") for path in (actual, expected))
    assert {k: v.replace(f"/{actual.name}".encode(), b"") for k, v in first.items()} == {
        k: v.replace(f"/{expected.name}".encode(), b"") for k, v in second.items()
    }


def test_a_preempted_job_ends_with_the_bits_of_one_that_was_not(folder, jobs, alone):
    shown = log(folder, jobs["preempted"])
    assert state(jobs["preempted"]) == [("COMPLETED", "0:0", 1)], shown
    assert "stopped by SIGTERM at step " in shown
    assert "(goes on from epoch=" in shown
    same(folder / "preempted", alone)


def test_a_job_that_meets_its_time_limit_goes_back_to_the_queue_and_ends_the_same(
    folder, jobs, alone
):
    shown = log(folder, jobs["late"])
    ((ended, code, restarts),) = state(jobs["late"])
    assert (ended, code) == ("COMPLETED", "0:0"), shown
    assert restarts >= 1
    assert "stopped by SIGUSR1 at step " in shown
    assert f"time is up: job {jobs['late']} goes back to the queue" in shown
    same(folder / "late", alone)


def test_a_chain_makes_stages_then_an_array_of_four_then_the_table(folder, jobs):
    assert {state(jobs[name])[0][:2] for name in ("target", "retain", "table")} == {
        ("COMPLETED", "0:0")
    }
    assert [job[:2] for job in state(jobs["array"])] == [("COMPLETED", "0:0")] * 4, log(
        folder, jobs["array"]
    )
    assert sorted(
        path.parent.parent.name for path in folder.glob(f"four/*/seed0/{run_folder.SUMMARY_FILE}")
    ) == [f"beta=0.{n}" for n in (1, 2, 3, 4)]
    shown = log(folder, jobs["table"])
    assert all(f"beta=0.{n}" in shown for n in (1, 2, 3, 4))
    named = {
        line.split(" | ")[0] for line in (folder / "four" / "table.md").read_text().splitlines()
    }
    assert named >= {"| retain model", *(f"| beta=0.{n}" for n in (1, 2, 3, 4))}
    assert "(made before)" in log(folder, jobs["target"])


def test_two_tasks_of_a_job_share_an_evaluation_and_one_of_them_prints(folder, jobs, capsys):
    shown = log(folder, jobs["evaluated"])
    assert state(jobs["evaluated"])[0][:2] == ("COMPLETED", "0:0"), shown
    assert shown.count("loading ") == 1
    assert evaluate.main(evaluation(folder, "here")) == 0
    assert capsys.readouterr().out.count("probability") == shown.count("probability") > 0
    assert files(folder / "evaluated") == files(folder / "here")


def test_an_identifiers_job_leaves_its_span_file(folder, jobs):
    assert state(jobs["identified"])[0][:2] == ("COMPLETED", "0:0"), log(folder, jobs["identified"])
    assert identify.main(["identifier.kind=gold", f"out={folder}/here.jsonl"]) == 0
    assert (folder / "spans.jsonl").read_bytes() == (folder / "here.jsonl").read_bytes()


def test_no_job_leaves_an_unfinished_checkpoint(folder, jobs):
    for name in ("preempted", "late"):
        names = {path.name for path in (folder / name / "checkpoints").iterdir()}
        assert names == {
            path.name for path in checkpoints.list_checkpoints(folder / name / "checkpoints")
        }
