"""A run for tests: the quickstart with six authors and a model of one layer, in seconds.

Its loss and optimizer are spelled out, so that the quickstart may change.
"""

import contextlib
import dataclasses
import io
import json
import pathlib
import shutil

from tif import fit

_WORDS = (
    "data.fictitious.authors=6 data.fictitious.questions_per_author=4 "
    "data.fictitious.forget_share=0.34 data.batch_size=4 model.init.hidden_size=32 "
    "model.init.intermediate_size=64 model.init.num_hidden_layers=1 "
    "model.init.num_attention_heads=2 model.init.num_key_value_heads=2 "
    "model.init.vocab_size=400 loss.forget=lpl loss.on=uw loss.preserve=pl loss.retain=ce "
    "loss.beta=0.3 loss.lpl_baseline=none loss.lpl_reduction=sample loss.pl_reduction=sum "
    "loss.pl_weight=0.01 loss.retain_weight=0.5 optimizer.lr=1e-3 optimizer.warmup_epochs=1 "
    "optimizer.decay=linear trainer.max_epochs=2 stages.target.optimizer.lr=1e-2 "
    "stages.retain.optimizer.lr=1e-2 stages.target.trainer.max_epochs=4 "
    "stages.retain.trainer.max_epochs=4 stages.target.data.batch_size=4 "
    "stages.retain.data.batch_size=4 eval.max_new_tokens=8 eval.max_samples.retain=6 "
    "eval.max_samples.real_authors=3 eval.max_samples.world_facts=3 run.keep_checkpoints=1 "
    "run.name=quickstart run.checkpoint_every_n_seconds=0 "
)
SMALL = _WORDS.split()


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        folder: of the run.
        runs: the folder that holds it and its stages.
        target: folder of the target stage.
        retain: folder of the retain model's records.
        output: what the run printed.
    """

    folder: pathlib.Path
    runs: pathlib.Path
    target: pathlib.Path
    retain: pathlib.Path
    output: str


_finished: list[Finished] = []


def finished(tmp_path_factory) -> Finished:
    """Return a finished run, made once a session.

    Read its folder only. Other runs may be made beside it and share its stages.
    """
    if not _finished:
        runs = tmp_path_factory.mktemp("finished") / "runs"
        with contextlib.redirect_stdout(io.StringIO()) as output:
            assert fit.main([*SMALL, f"run.folder={runs}"]) == 0
        (target,), (retain,) = (
            runs.glob("stages/target-*[0-9a-f]"),
            runs.glob("stages/retain-*/eval/*"),
        )
        _finished.append(Finished(runs / "quickstart", runs, target, retain, output.getvalue()))
    return _finished[0]


def rows(folder):
    """Return all rows of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def files(folder):
    """Return the content of every file below a folder, by relative path."""
    return {
        p.relative_to(folder): p.read_bytes()
        for p in sorted(pathlib.Path(folder).rglob("*"))
        if p.is_file()
    }


def copied_run(tmp_path_factory):
    """Return the folder of a copy of the finished run and its stages, to write into."""
    original = finished(tmp_path_factory)
    copy = tmp_path_factory.mktemp("copied") / "runs"
    shutil.copytree(original.runs, copy)
    for file in copy.rglob("config.yaml"):
        file.write_text(file.read_text().replace(str(original.runs), str(copy)))
    return copy
