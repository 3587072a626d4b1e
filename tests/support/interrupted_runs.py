"""Runs that are stopped in a chosen step, and what must be the same when they have gone on."""

import re

import pytest

from tests.support.small_run import SMALL, files, finished, rows
from tif import fit
from tif.records import run_folder
from tif.training import module

# Four steps an epoch; the stages are those of the session's finished run.
WORDS = [
    *SMALL, "data.batch_size=2", "stages.target.data.batch_size=4", "eval.forget_quality=false",
    "eval.max_new_tokens=4", "eval.max_samples.forget=3", "eval.max_samples.retain=2",
    "eval.max_samples.real_authors=1", "eval.max_samples.world_facts=1", "run.keep_checkpoints=2",
]  # fmt: skip

LORA = ["model.lora.rank=2", "model.lora.dropout=0.3", "stages.target.model.lora.rank=0"]


def run_words(parent, name, *more):
    """Return the words of a run of that name in a folder."""
    return [*WORDS, f"run.folder={parent}", f"run.name={name}", *more]


def undisturbed_run(tmp_path_factory, name, *more):
    """Return the folder of a run that nothing interrupts, made once a session."""
    folder = finished(tmp_path_factory).runs
    if not (folder / name / run_folder.SUMMARY_FILE).exists():
        assert fit.main(run_words(folder, name, *more)) == 0
    return folder / name


def outcome(folder):
    """Return what must be the same bit for bit: rows, records, weights."""
    contents = {"rows": rows(folder)}
    for path, content in files(folder).items():
        if path.parts[0] in ("eval", "model") and path.name != "README.md":
            content = content.replace(str(folder).encode(), b"NAME")
            content = re.sub(rb'"[^"]*/stages/', b'"STAGES/', content)  # which may be copies
            contents[path] = content
    return contents


def assert_same_outcome(actual, expected):
    """Check that two runs have the same rows, records and weights, bit for bit."""
    actual, expected = outcome(actual), outcome(expected)
    assert actual.keys() == expected.keys()
    different = [str(name) for name in actual if actual[name] != expected[name]]
    assert different == [], different


def act_in_step(patch, step, action, owner=module.UnlearningModule, name="training_step"):
    """Call `action` in the middle of step number `step`, counted from 0."""
    real, calls = getattr(owner, name), []

    def stopping(*args, **keys):
        calls.append(args)
        if len(calls) == step + 1:
            action()
        return real(*args, **keys)

    patch.setattr(owner, name, stopping)


class Killed(Exception):
    """Stands for a process that is killed."""


def die():
    """Raise Killed."""
    raise Killed


def killed_run(quiet, name, monkeypatch, step=7, *more):
    """Return words and folder of a run killed in a step, with a checkpoint of each step before."""
    words = run_words(quiet.parent, name, "run.checkpoint_every_n_steps=1", *more)
    with monkeypatch.context() as patch:
        act_in_step(patch, step, die)
        with pytest.raises(Killed):
            fit.main(words)
    return words, quiet.parent / name


def dies_at(monkeypatch, owner, name, when):
    """Make `owner.name` raise Killed at the call for which `when(args)` holds."""
    real = getattr(owner, name)

    def dying(*args, **kwargs):
        if when(args):
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, dying)
