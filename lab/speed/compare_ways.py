"""what=ways: a step of TPO, ours against three other ways to compute the same loss."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from torch.optim import Optimizer

from lab.speed.matrices import count_operations, count_tokens, measure_rate
from lab.speed.settings import SpeedSettings
from lab.speed.ways import make_way
from tif.bench.process import PeakMemory, run_alone
from tif.bench.step import (
    Step,
    draw_batches,
    load_training,
    make_idle_optimizer,
    take_step,
)
from tif.data.encoding import Batch
from tif.probes.check_model import check_model
from tif.probes.small_copy import RowSettings
from tif.utils.terminal import progress_bar, track

WAYS = ("ours", "release", "two-pass", "dynamic")
# Largest relative difference of the ways' losses. With weights of fewer bits the products depend
# on the form of the batch.
TOLERANCES = {"float32": 1e-4}
TOLERANCE_FEW_BITS = 2e-2
COLUMNS = {
    "batch": "{batch_size}",
    "way": "{way}",
    "s/step": "{seconds:.2f}",
    "ours = 1": "{ratio:.2f}",
    "tokens/s": "{tokens_per_second:,}",
    "of GFLOP/s": "{share:.0%} of {matmul_gflops:.0f}",
    "MB": "{memory_mb:,}",
    "whole MB": "{whole_mb:,}",
}
NOTE = (
    "of GFLOP/s: the share of this machine's rate of matrix products; MB: memory above weights, "
    "gradients and optimizer; whole MB: with them. --json has all digits"
)
Timings = dict[str, list[tuple[float, float]]]  # way -> (loss, seconds) of each batch


def measure(settings: SpeedSettings) -> list[dict[str, Any]]:
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
    if settings.model.path:
        check_model(settings.model, rows=RowSettings(settings.data.batching, settings.device))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    policy, data = load_training(settings)
    names = [name for name in WAYS if name != "release" or settings.release]
    ways = {name: make_way(name, policy, data) for name in names}
    optimizer = make_idle_optimizer(policy)
    rows = []
    for size in settings.batch_sizes:
        if size > settings.release:
            ways.pop("release", None)
        batches = draw_batches(policy, data, size, settings.samples // size)
        rate_before = measure_rate(policy, batches[0])
        timings = time_ways(ways, optimizer, batches)
        check_losses(timings, TOLERANCES.get(settings.model.dtype, TOLERANCE_FEW_BITS))
        rate = (rate_before + measure_rate(policy, batches[0])) / 2
        operations = sum(count_operations(policy, batch) for batch in batches)
        rows += make_rows(timings, batches, operations, rate)
    del policy, data, ways, optimizer  # the processes that measure memory need it
    if settings.memory:
        add_memory(rows, settings)
    return rows


def add_memory(rows: Sequence[dict[str, Any]], settings: SpeedSettings) -> None:
    """Add the memory of a step at the smallest and the largest batch size to their rows."""
    sizes = (min(settings.batch_sizes), max(settings.batch_sizes))
    for row in track([row for row in rows if row["batch_size"] in sizes], "memory"):
        try:
            memory = run_alone(measure_memory, settings, row["batch_size"], row["way"])
            row["memory_mb"], row["whole_mb"] = memory
        except BrokenProcessPool:  # the process was killed because the machine has no more memory
            row["memory_mb"] = None


def measure_memory(settings: SpeedSettings, size: int, way: str) -> tuple[int, int]:
    """Return the peak of a step in MB, above weights, gradients and optimizer, and with them."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    policy, data = load_training(settings)
    batches = draw_batches(policy, data, size, settings.samples // size)
    # The batch with the longest sample of those that are timed: it decides a run's memory.
    largest = max(batches, key=lambda batch: int(batch.lengths.max()))
    optimizer = make_idle_optimizer(policy)
    memory = PeakMemory(settings.device)
    step = make_way(way, policy, data)
    memory.restart()
    take_step(step, optimizer, largest)
    above = memory.peak_mb()
    return round(above), round(above + memory.held_mb)


def time_ways(
    ways: Mapping[str, Step], optimizer: Optimizer, batches: Sequence[Batch]
) -> Timings:
    """Run all ways on the same batches, one way after the other on each batch.

    `release` runs on the first batch only: it takes as long as all the others together.
    """
    for name, way in ways.items():
        if name != "release":
            take_step(way, optimizer, batches[0])  # warm up
    timings: Timings = defaultdict(list)
    with progress_bar(f"batch {len(batches[0].ids)}", len(batches)) as progress:
        for number, batch in enumerate(batches):
            for name, way in ways.items():
                if name != "release" or number == 0:
                    timings[name].append(take_step(way, optimizer, batch))
            progress.advance()
    return timings


def check_losses(timings: Timings, tolerance: float) -> None:
    """Raise AssertionError if the losses of two ways differ by more than the tolerance."""
    for name, steps in timings.items():
        for (loss, _), (our_loss, _) in zip(steps, timings["ours"], strict=False):
            difference = abs(loss - our_loss) / abs(our_loss)
            assert difference < tolerance, f"{name}: loss differs by {difference:.1e} from ours"


def make_rows(
    timings: Timings, batches: Sequence[Batch], operations: float, rate: float
) -> list[dict[str, Any]]:
    """Return a row for each way, from the operations of all matrix products and their FLOP/s."""
    tokens = [count_tokens(batch)[0] for batch in batches]
    our_seconds = [seconds for _, seconds in timings["ours"]]
    rows = []
    for name, steps in timings.items():
        losses, seconds = zip(*steps, strict=True)
        ratios = [other / ours for other, ours in zip(seconds, our_seconds, strict=False)]
        row = {
            "batch_size": len(batches[0].ids),
            "way": name,
            "steps": len(steps),
            "loss": round(statistics.mean(losses), 4),
            "seconds": round(statistics.median(seconds), 3),
            "ratio": round(statistics.median(ratios), 2),
            "tokens_per_second": round(sum(tokens[: len(steps)]) / sum(seconds)),
        }
        if name == "ours":
            reached = operations / sum(our_seconds)
            row["gflops"], row["matmul_gflops"] = round(reached / 1e9, 1), round(rate / 1e9, 1)
            row["share"] = round(reached / rate, 3)
        rows.append(row)
    return rows
