"""What a sweep's file wants shown of its runs. Read by reports/sweep.py and sweep_plots.py."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class View:
    """The table and the pictures of a sweep.

    Attributes:
        epoch: last or best; what table and plots show.
        columns: metrics of the table; () = the pair that every sweep shows.
        plots: by name, (x, y): a point a run; x is a metric or a key.
        paths: by name, (x, y): two metrics, each run over its epochs.
        entries: by run, its entry of `runs` and its values of `grid`.
    """

    epoch: str = "last"
    columns: Sequence[str] = ()
    plots: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    paths: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    entries: Mapping[str, tuple[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
