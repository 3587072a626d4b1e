"""what=memory: the memory that tif bench computes, against what a small model needs in training."""

import itertools
import os
from collections.abc import Callable
from typing import Any

import torch

from lab.speed.settings import SpeedSettings
from tif.bench import memory
from tif.bench.memory import TRAININGS, Need, autocast, estimate_need, make_config, make_row
from tif.bench.step import make_random_model
from tif.config.schema import Lora, Model, Optimizer
from tif.data.encoding import Encoded, collate
from tif.scoring.token_scores import score_tokens
from tif.training.optimizer import make_optimizer
from tif.utils.terminal import track

SMALL_SHAPE = (256, 704, 4, 8, 4, 4096, False)
COLUMNS = memory.COLUMNS | {"measured": "{measured_gb:.2f}"}
NOTE = memory.NOTE


def measure(settings: SpeedSettings) -> list[dict[str, Any]]:
    """Return a row for each training, with the measured peak and the computed total over it."""
    rows = []
    for training in track(list(TRAININGS), "small models"):
        need, peak = check_small_model(training)
        row = make_row("small", training, 1, need)
        rows.append(row | {"measured_gb": peak / 1e9, "ratio": sum(need) / peak})
    return rows


def check_small_model(training: str, tokens: int = 768) -> tuple[Need, float]:
    """Train a small model for two steps of two parts; return the computed need and the peak."""
    config, length = make_config(SMALL_SHAPE), 64
    dtype, precision, has_adapters, quantize = TRAININGS[training]
    lora = Lora(rank=16 if has_adapters else 0)
    model = Model(init=config.to_dict(), lora=lora, quantize=quantize, dtype=dtype or "bfloat16")
    policy = make_random_model(model)
    answer = [False] + [True] * (length - 1)
    samples = []
    for number in range(tokens // length):
        samples.append(Encoded(str(number), [1 + number] * length, [False] * length, answer))
    batch = collate(samples, range(len(samples)), 0)
    optimizer = make_optimizer(policy, Optimizer(), precision)

    def train() -> None:
        for _ in range(2):
            for _ in range(2):
                with autocast(precision == "bf16-mixed"):
                    loss = score_tokens(policy, batch).logprob.mean()
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    need = estimate_need(config, training, 1, tokens, model)
    return need, measure_peak(policy, train)


def measure_peak(model: torch.nn.Module, work: Callable[[], None]) -> float:
    """Return the most bytes of tensors that live at once while `work` runs, the model's included.

    On a CPU, with torch's profiler, which sees every allocation. MemTracker of
    torch.distributed._tools refuses weights without a gradient, so all models with LoRA.
    """
    storages = {}
    for tensor in (*model.parameters(), *model.buffers()):
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it prints that it starts and stops
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        work()
    results: Any = profile.profiler
    changes = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return sum(storages.values()) + max(itertools.accumulate(e.nbytes() for e in changes))
