"""what=step: a step of TPO, ours against three other ways to compute the same loss."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from rich.table import Table

from tif.bench.matrices import count_operations, count_tokens, measure_rate
from tif.bench.process import PeakMemory, run_alone
from tif.bench.settings import BenchSettings
from tif.bench.table import make_plain_table
from tif.bench.training_setup import TrainingSetup, load_setup
from tif.bench.ways import Way
from tif.data.encoding import Batch
from tif.utils.terminal import progress_bar, track

WAYS = ("ours", "release", "two-pass", "dynamic")
# Largest relative difference of the ways' losses. With weights of fewer bits the products depend
# on the form of the batch.
TOLERANCES = {"float32": 1e-4}
TOLERANCE_FEW_BITS = 2e-2


@dataclasses.dataclass
class Timing:
    """Losses and seconds of one way, a value for each batch."""

    losses: list[float] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)


def measure(settings: BenchSettings) -> list[dict[str, Any]]:
    """Return a row for each batch size and way.

    Keys: batch_size, way, steps, loss, seconds (median of a step with its optimizer step), ratio
    (median over batches of its seconds to ours on the same batch), tokens_per_second (real
    tokens). Ours also: gflops that the step reaches, matmul_gflops of the machine's matrix
    products at the step's shapes, share of the two. Where memory was measured: memory_mb above
    weights, gradients and optimizer (None = more than the machine has), whole_mb with them.

    Raises:
        ConfigError: If model or data cannot be loaded.
        AssertionError: If the ways' losses differ; then nothing comparable was measured.
    """
    setup = load_setup(settings)
    ways = {}
    for name in WAYS:
        if name != "release" or settings.release:
            ways[name] = setup.make_way(name)
    optimizer = setup.make_optimizer()
    rows = []
    for size in settings.batch_sizes:
        chosen = dict(ways)
        if size > settings.release:
            chosen.pop("release", None)
        batches = setup.make_batches(size, settings.samples // size)
        rate_before = measure_rate(setup.policy, batches[0])
        timings = time_ways(setup, chosen, optimizer, batches)
        rate = (rate_before + measure_rate(setup.policy, batches[0])) / 2
        check_losses(timings, TOLERANCES.get(settings.model.dtype, TOLERANCE_FEW_BITS))
        operations = [count_operations(setup.policy, batch) for batch in batches]
        rows += make_rows(timings, batches, sum(operations), rate)
    del setup, ways, optimizer  # the processes that measure memory need it
    if settings.memory:
        add_memory(rows, settings)
    return rows


def time_ways(
    setup: TrainingSetup,
    ways: Mapping[str, Way],
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
) -> dict[str, Timing]:
    """Run all ways on the same batches, one way after the other on each batch.

    `release` runs on the first batch only: it takes as long as all the others together.
    """
    timings = {name: Timing() for name in ways}
    for name, way in ways.items():
        if name != "release":
            setup.run_step(way, optimizer, batches[0])  # warm up
    with progress_bar(f"batch {len(batches[0].ids)}", len(batches)) as progress:
        for number, batch in enumerate(batches):
            for name, way in ways.items():
                if name == "release" and number > 0:
                    continue
                loss, seconds = setup.run_step(way, optimizer, batch)
                timings[name].losses.append(loss)
                timings[name].seconds.append(seconds)
            progress.advance()
    return timings


def check_losses(timings: Mapping[str, Timing], tolerance: float) -> None:
    """Raise AssertionError if the losses of two ways differ by more than the tolerance."""
    for name, timing in timings.items():
        for loss, ours in zip(timing.losses, timings["ours"].losses, strict=False):
            difference = abs(loss - ours) / abs(ours)
            assert difference < tolerance, f"{name}: loss differs by {difference:.1e} from ours"


def make_rows(
    timings: Mapping[str, Timing], batches: Sequence[Batch], operations: float, rate: float
) -> list[dict[str, Any]]:
    """Return a row for each way.

    Args:
        timings: by way.
        batches: that were trained on.
        operations: of the matrix products of all batches.
        rate: FLOP/s of the machine's matrix products.
    """
    tokens = [count_tokens(batch)[0] for batch in batches]
    ours = timings["ours"].seconds
    rows = []
    for name, timing in timings.items():
        steps = len(timing.seconds)
        ratios = [other / our for other, our in zip(timing.seconds, ours, strict=False)]
        row = {
            "batch_size": len(batches[0].ids),
            "way": name,
            "steps": steps,
            "loss": round(statistics.mean(timing.losses), 4),
            "seconds": round(statistics.median(timing.seconds), 3),
            "ratio": round(statistics.median(ratios), 2),
            "tokens_per_second": round(sum(tokens[:steps]) / sum(timing.seconds)),
        }
        if name == "ours":
            reached = operations / sum(ours)
            row["gflops"] = round(reached / 1e9, 1)
            row["matmul_gflops"] = round(rate / 1e9, 1)
            row["share"] = round(reached / rate, 3)
        rows.append(row)
    return rows


def add_memory(rows: Sequence[dict[str, Any]], settings: BenchSettings) -> None:
    """Add the memory of the steps at the smallest and the largest batch size to their rows."""
    sizes = (min(settings.batch_sizes), max(settings.batch_sizes))
    chosen = [row for row in rows if row["batch_size"] in sizes]
    for row in track(chosen, "memory"):
        try:
            memory = run_alone(measure_memory, settings, row["batch_size"], row["way"])
            row["memory_mb"], row["whole_mb"] = memory
        except BrokenProcessPool:  # the process was killed because the machine has no more memory
            row["memory_mb"] = None


def measure_memory(settings: BenchSettings, size: int, name: str) -> tuple[int, int]:
    """Return the peak of a step in MB, above weights, gradients and optimizer, and with them.

    The reference of others' ways, a second model, counts above.
    """
    setup = load_setup(settings)
    batches = setup.make_batches(size, settings.samples // size)
    # The batch with the longest sample of those that are timed: it decides a run's memory.
    largest = max(batches, key=lambda batch: int(batch.lengths.max()))
    setup.samples = setup.samples.select(largest.index.tolist())
    optimizer = setup.make_optimizer()
    memory = PeakMemory(settings.device)
    way = setup.make_way(name)
    memory.restart()
    setup.run_step(way, optimizer, setup.make_batch())
    above = memory.peak_mb()
    return round(above), round(above + memory.held_mb)


def make_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the table for the terminal."""
    lines = []
    for row in rows:
        line = {"share_text": "", "memory_text": "", "whole_text": "", **row}
        if "share" in row:
            line["share_text"] = f"{row['share']:.0%} of {row['matmul_gflops']:.0f}"
        if "whole_mb" in row:
            line["memory_text"] = f"{row['memory_mb']:,}"
            line["whole_text"] = f"{row['whole_mb']:,}"
        elif "memory_mb" in row:
            line["memory_text"] = "did not fit"
        lines.append(line)
    columns = {
        "batch": "{batch_size}",
        "way": "{way}",
        "seconds": "{seconds:.2f}",
        "ours = 1": "{ratio:.2f}",
        "tokens/s": "{tokens_per_second:,}",
        "of GFLOP/s": "{share_text}",
        "MB": "{memory_text}",
        "whole MB": "{whole_text}",
    }
    return make_plain_table(lines, columns)
