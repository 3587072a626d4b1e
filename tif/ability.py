"""General ability: tasks of the lm-eval package, on the model that is loaded already. Extra `lm-eval`."""

import contextlib
import difflib
import functools
import importlib.util
import logging
import math
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tif.models import frozen
from tif.terminal import console

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NOT_METRICS = ("alias", "name", "sample_len", "sample_count")


def check(tasks: Sequence[str], folder: str | None = None) -> None:
    """Stop before weights load where lm-eval is not installed or has no such task.

    Args:
        tasks: names of tasks or groups (mmlu, wmdp_bio, ...).
        folder: of task files (YAML) besides lm-eval's own.

    Raises:
        ValueError: One line a problem: what to install, the nearest known name.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ValueError("benchmarks: lm-eval is not installed; want pip install 'tif-unlearning[lm-eval]'")
    known = _manager(tuple(tasks), folder).all_tasks
    for task in tasks:
        if task not in known:
            near = difflib.get_close_matches(task, known, 1)
            raise ValueError(f"benchmarks: lm-eval has no task {task}" + (f"; did you mean {near[0]}?" if near else ""))


def run(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    tasks: Sequence[str],
    folder: str | None = None,
    limit: int | None = None,
    batch_size: int = 8,
) -> dict[str, tuple[float, float | None]]:
    """Every metric of every task (and of a group's parts) with its standard error, as lm-eval computes them.

    The model is not loaded again. Every process runs all of it: lm-eval's own sharding wants to load the model itself.

    Args:
        model: on its device; its mode is restored.
        tokenizer: of the model.
        tasks: names of tasks or groups.
        folder: of task files besides lm-eval's own.
        limit: only the first n questions of each task.
        batch_size: questions in a batch.

    Returns:
        `lm-eval/<task>/<metric>` -> (value, standard error or None where lm-eval has none).

    Raises:
        ValueError: If a task cannot be had (its data set is not there, for example).
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with frozen(model), _random_state():
        try:
            found = lm_eval.simple_evaluate(
                HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
                tasks=list(tasks),
                limit=limit,
                task_manager=_manager(tuple(tasks), folder),
                log_samples=False,
                bootstrap_iters=1000,
            )
        except (OSError, ValueError, LookupError, ConnectionError) as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ValueError(f"benchmarks: lm-eval cannot run {', '.join(tasks)} ({reason})") from None
    return _values((found or {}).get("results", {}))


def _values(results: dict[str, dict[str, Any]]) -> dict[str, tuple[float, float | None]]:
    """lm-eval files a metric under "<name>,<filter>" and its error under "<name>_stderr,<filter>"."""
    found = {}
    for task, metrics in results.items():
        for name, value in metrics.items():
            metric, _, kind = name.partition(",")
            if metric in NOT_METRICS or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = metrics.get(f"{metric}_stderr,{kind}")
            if not isinstance(error, int | float) or not math.isfinite(error):
                error = None
            label = metric if kind in ("", "none") else f"{metric},{kind}"
            found[f"lm-eval/{task}/{label}"] = (float(value), error)
    return found


@functools.cache
def _manager(tasks: tuple[str, ...], folder: str | None) -> Any:
    """lm-eval's index of tasks; its own thousands are read only where the folder does not have all that is asked."""
    from lm_eval.tasks import TaskManager

    if folder is not None:
        found = TaskManager(include_path=folder, include_defaults=False)
        if set(tasks) <= set(found.all_tasks):
            return found
    console.print("reading lm-eval's list of tasks")
    return TaskManager(include_path=folder)


@contextlib.contextmanager
def _random_state() -> Iterator[None]:
    """lm-eval seeds the global generators; they are put back as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
