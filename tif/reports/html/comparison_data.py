"""Several runs side by side: which belong together, what they reached, and what differs."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.records import run_folder
from tif.records.metrics_log import FILE_NAME
from tif.reports import sweep
from tif.reports.summary import title_of
from tif.utils.hashing import hash_json
from tif.utils.terminal import escape_controls

LONGEST = 60  # characters of a key's value in the table of differences


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    name: str  # of the first run's folder, or of the sweep's run that they are
    folders: tuple[Path, ...]
    keys: Mapping[str, Any]  # the configuration by dotted name, without section `run`
    rows: Sequence[Mapping[str, Any]]  # their evaluations, mean over the seeds, by epoch


def find_runs(folder: Path) -> list[Path]:
    """Return the runs of a sweep's folder, <run>/seed<N>, in order; none where it is no sweep's."""
    files = folder.glob(f"*/seed*/{FILE_NAME}")
    return sorted((file.parent for file in files), key=lambda path: (path.parent.name, path.name))


def group_runs(folders: Sequence[Path]) -> list[Group]:
    """Return the runs, those of one configuration and different seeds together.

    Raises:
        DamagedFile: If a file of a folder cannot be read.
    """
    members: dict[str, list[Path]] = {}
    keys: dict[str, dict[str, Any]] = {}
    for folder in folders:
        flat = run_folder.read_flat_config(folder)
        flat = {key: value for key, value in flat.items() if not key.startswith("run.")}
        # Runs without a config.yaml are runs of their own.
        hashed = hash_json(flat) if flat else str(folder)
        members.setdefault(hashed, []).append(folder)
        keys[hashed] = flat
    counts, groups = Counter[str](), []
    for hashed, paths in members.items():
        name = escape_controls(title_of(paths[0]).partition("/")[0])
        counts[name] += 1
        name += f" ({counts[name]})" if counts[name] > 1 else ""
        groups.append(Group(name, tuple(paths), keys[hashed], mean_rows(paths)))
    return groups


def collect(groups: Sequence[Group]) -> dict[str, Any]:
    """Return best and last epoch of each group over its seeds, see sweep.collect_results."""
    return sweep.collect_results({group.name: group.folders for group in groups})


def find_differences(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Return the keys in which the groups differ, and each group's values of them."""
    differing = []
    for key in dict.fromkeys(itertools.chain(*(group.keys for group in groups))):
        if len({repr(group.keys.get(key)) for group in groups}) > 1:
            differing.append(key)
    return differing, [[_short(group.keys.get(key)) for key in differing] for group in groups]


def mean_rows(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return a row for each epoch that all runs evaluated, with the means of what all have."""
    by_epoch: dict[int, list[dict[str, Any]]] = {}
    for folder in folders:
        for row in run_folder.evaluation_rows(folder):
            by_epoch.setdefault(row["epoch"], []).append(row)
    rows = []
    for epoch, same in sorted(by_epoch.items()):
        if len(same) == len(folders):
            means = sweep.summarize_rows(same)
            rows.append({name: value["mean"] for name, value in means.items()} | {"epoch": epoch})
    return rows


def _short(value: Any) -> str:
    text = escape_controls("–" if value is None else str(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
