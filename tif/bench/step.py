"""what=step: a step of TPO on this machine, as `tif fit` takes it."""

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tif.bench.process import PeakMemory, run_alone
from tif.bench.settings import BenchSettings
from tif.bench.training_setup import Step, TrainingSetup, load_setup
from tif.data.encoding import Batch
from tif.utils.terminal import track

COLUMNS = {
    "batch": "{batch_size}",
    "s/step": "{seconds:.2f}",
    "tokens/s": "{tokens_per_second:,}",
    "MB": "{memory_mb:,}",
    "whole MB": "{whole_mb:,}",
}
MakeStep = Callable[[TrainingSetup], Step]
NOTE = "MB: memory above weights, gradients and optimizer; whole MB: with them"


def measure(settings: BenchSettings) -> list[dict[str, Any]]:
    """Return a row for each batch size.

    Keys: batch_size, steps, loss, seconds (median of a step with its optimizer step),
    tokens_per_second (real tokens). Where memory was measured: memory_mb above weights, gradients
    and optimizer (None = more than the machine has), whole_mb with them.

    Raises:
        ConfigError: If model or data cannot be loaded.
    """
    setup = load_setup(settings)
    step, optimizer = setup.make_step(), setup.make_optimizer()
    rows = []
    for size in settings.batch_sizes:
        batches = setup.draw_batches(size, settings.samples // size)
        setup.run_step(step, optimizer, batches[0])  # warm up
        timings = []
        for batch in track(batches, f"batch {size}"):
            timings.append(setup.run_step(step, optimizer, batch))
        rows.append(_make_row(timings, batches))
    del setup, step, optimizer  # the processes that measure memory need it
    if settings.memory:
        add_memory(rows, settings, lambda row: TrainingSetup.make_step)
    return rows


def _make_row(timings: Sequence[tuple[float, float]], batches: Sequence[Batch]) -> dict[str, Any]:
    """Return the row of a batch size, from loss and seconds of each step."""
    losses, seconds = zip(*timings, strict=True)
    tokens = sum(_count_tokens(batch) for batch in batches)
    return {
        "batch_size": len(batches[0].ids),
        "steps": len(timings),
        "loss": round(statistics.mean(losses), 4),
        "seconds": round(statistics.median(seconds), 3),
        "tokens_per_second": round(tokens / sum(seconds)),
    }


def _count_tokens(batch: Batch) -> int:
    """Return all real tokens, those of the retain samples included."""
    retain = 0 if batch.retain is None else int(batch.retain.lengths.sum())
    return int(batch.lengths.sum()) + retain


def add_memory(
    rows: Sequence[dict[str, Any]],
    settings: BenchSettings,
    choose_step: Callable[[dict[str, Any]], MakeStep],
) -> None:
    """Add the memory of a step at the smallest and the largest batch size to their rows."""
    sizes = (min(settings.batch_sizes), max(settings.batch_sizes))
    for row in track([row for row in rows if row["batch_size"] in sizes], "memory"):
        try:
            memory = run_alone(measure_memory, settings, row["batch_size"], choose_step(row))
            row["memory_mb"], row["whole_mb"] = memory
        except BrokenProcessPool:  # the process was killed because the machine has no more memory
            row["memory_mb"] = None


def measure_memory(settings: BenchSettings, size: int, make_step: MakeStep) -> tuple[int, int]:
    """Return the peak of a step in MB, above weights, gradients and optimizer, and with them."""
    setup = load_setup(settings)
    batches = setup.draw_batches(size, settings.samples // size)
    # The batch with the longest sample of those that are timed: it decides a run's memory.
    largest = max(batches, key=lambda batch: int(batch.lengths.max()))
    setup.keep_only(largest.index.tolist())
    optimizer = setup.make_optimizer()
    memory = PeakMemory(settings.device)
    step = make_step(setup)
    memory.restart()
    setup.run_step(step, optimizer, setup.make_batch())
    above = memory.peak_mb()
    return round(above), round(above + memory.held_mb)
