"""Find the run folders in a folder and show them as a table. Called by `tif ls runs`."""

import dataclasses
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tif.config.errors import ConfigError
from tif.records import metrics_log
from tif.records.run_folder import (
    CONFIG_FILE,
    SUMMARY_FILE,
    evaluation_rows,
    read_config,
    training_rows,
)
from tif.reports.columns import column_title, format_metric, list_main_columns
from tif.utils.files import DamagedFile
from tif.utils.terminal import literal

SHOWN = 3  # metrics of the last evaluation: the first main ones that the runs have
DEEPEST = 4  # <folder>/<sweep>/<variant>/seedN
UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclasses.dataclass
class RunLine:
    """What the table says of a run."""

    name: str  # of its folder, below the folder that was asked for
    settings: str = ""  # method, data and model in a few words
    epochs: str = ""  # "done/wanted"
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the last evaluation
    is_done: bool = False  # whether the run is complete
    changed: float = 0.0  # time of its last write, in seconds since 1970
    problem: str | None = None  # one line where a file of the folder is damaged


def read_runs(parents: Iterable[Path]) -> list[RunLine]:
    """Return the runs in folders, the newest first."""
    runs = []
    for parent in parents:
        for folder in find_run_folders(parent):
            # as the command's words name it; the parent itself is left out
            place = folder if folder == parent else folder.relative_to(parent)
            runs.append(_read_run(folder, str(place)))
    return sorted(runs, key=lambda run: -run.changed)


def find_run_folders(parent: Path) -> list[Path]:
    """Return a folder itself or those below it that hold a run: config.yaml and env.json."""
    folders = []
    for folder, names, files in os.walk(parent):
        is_run = CONFIG_FILE in files and "env.json" in files
        if is_run:
            folders.append(Path(folder))
        depth = len(Path(folder).relative_to(parent).parts)
        if is_run or depth >= DEEPEST:
            names.clear()  # os.walk goes no deeper
    return folders


def _read_run(folder: Path, name: str) -> RunLine:
    """Return a run's line, which names what is damaged in the folder."""
    files = [folder / file for file in (CONFIG_FILE, metrics_log.FILE_NAME, SUMMARY_FILE)]
    run = RunLine(name, is_done=files[-1].exists())
    run.changed = max(file.stat().st_mtime for file in files if file.exists())
    try:
        keys = read_config(folder)
        run.settings = _describe(keys)
        evaluations, training = evaluation_rows(folder), training_rows(folder)
        run.metrics = evaluations[-1] if evaluations else {}
        epochs = [row["epoch"] for row in evaluations]
        if training:  # its last epoch is complete where the next one began or the run ended
            epochs.append(training[-1]["epoch"] - (0 if run.is_done else 1))
        run.epochs = f"{max(epochs, default=0)}/{keys['trainer']['max_epochs']}"
    except (AttributeError, ConfigError, DamagedFile, KeyError, TypeError, OSError) as error:
        run.problem = f"{name}: damaged ({' '.join(str(error).split())})"
    return run


def _describe(keys: dict[str, dict[str, Any]]) -> str:
    """Return method, data and model of a configuration in a few words."""
    data, loss = keys["data"], keys["loss"]
    parts = [str(data["benchmark"])]
    if data.get("split"):
        parts.append(str(data["split"]))
    if data["train"] == "forget":
        terms = [str(loss[key]) for key in ("forget", "preserve", "retain")]
        parts.insert(0, "+".join(term for term in terms if term != "none") + " on")
    else:
        parts.append("retain model" if data["train"] == "retain" else "target model")
    path = keys["model"].get("path")
    starts_from_stage = path in keys["stages"]
    if starts_from_stage:
        path = keys["model"].get("base")
    name = Path(str(path)).name
    if name == "model":  # the exported model of a run
        name = Path(str(path)).parent.name
    work = " ".join(parts)
    if not path:  # of a target model made from scratch, "random weights" would be wrong
        return work if starts_from_stage else f"{work}, random weights"
    return f"{work}, {name}"


def runs_table(runs: Sequence[RunLine]) -> Table:
    """Return a table with two lines a run: its numbers, and below its name what it is."""
    known_metrics = set().union(*(run.metrics for run in runs))
    columns = [name for name in list_main_columns() if name in known_metrics][:SHOWN]
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold", ratio=1)
    table.add_column("epochs", justify="right", no_wrap=True)
    for name in columns:
        title = column_title(name).replace("→ ", "→\u00a0").replace(" ", "\n")
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for run in runs:
        settings = Padding(literal(run.settings, "dim"), (0, 0, 0, 2))
        label = Group(literal(run.name), settings) if run.settings else literal(run.name)
        values = [format_metric(name, run.metrics.get(name)) for name in columns]
        table.add_row(label, run.epochs, *values, _describe_state(run))
    return table


def _describe_state(run: RunLine) -> Text:
    """Return whether a run is done, and how long ago something was written."""
    state, style = ("done", "green") if run.is_done else ("open", "yellow")
    if run.problem:
        state, style = "damaged", "red"
    seconds = max(0.0, time.time() - run.changed)
    ages = [f"{seconds // size:.0f} {unit} ago" for size, unit in UNITS if seconds >= size]
    age = ages[0] if ages else "now"
    return Text.assemble((state, style), "\n", (age, "dim"))
