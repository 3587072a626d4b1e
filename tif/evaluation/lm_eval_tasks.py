"""General ability: tasks of the lm-eval package, on the model that is loaded already. Extra `lm-eval`."""

import contextlib
import difflib
import functools
import importlib.util
import itertools
import logging
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tif.config.errors import ConfigError, one_line
from tif.config.schema import LmEval
from tif.utils import distributed
from tif.utils.terminal import console, silenced_libraries
from tif.utils.torch_state import evaluation_mode
from tif.utils.work_sharing import share_work

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
        raise ValueError("eval.benchmarks: lm-eval is not installed; want pip install 'tif-unlearning[lm-eval]'")
    known = _manager(tuple(tasks), folder).all_tasks
    for task in tasks:
        if task not in known:
            near = difflib.get_close_matches(task, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"eval.benchmarks: lm-eval has no task {task}{hint}")


def read(tasks: Sequence[str], folder: str | None = None) -> None:
    """Read the tasks' data, once; what is not on disk is downloaded.

    Raises:
        ConfigError: If a task cannot be had (its data set is not there, for example).
    """
    with _told(tasks):
        _read(tuple(tasks), folder)


def run(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", tasks: Sequence[str], cfg: LmEval
) -> dict[str, tuple[float, float | None]]:
    """Every metric of every task (and of a group's parts) with its standard error, as lm-eval computes them.

    The model is not loaded again. The questions are shared out to all processes, and the values are those of one.

    Args:
        model: on its device; its mode is restored. Its forward is under the mixed precision that is on, if any.
        tokenizer: of the model.
        tasks: names of tasks or groups.
        cfg: where tasks are besides lm-eval's own, and how many questions.

    Returns:
        `lm-eval/<task>/<metric>` -> (value, standard error or None where lm-eval has none).

    Raises:
        ConfigError: If a task cannot be had or cannot be asked.
    """
    from lm_eval import evaluator

    with evaluation_mode(model), _random_state(), _told(tasks):
        found = evaluator.simple_evaluate(
            _sharing(model, tokenizer, cfg.batch_size),
            tasks=list(tasks),
            limit=cfg.limit,
            task_manager=_read(tuple(tasks), cfg.folder),
            log_samples=False,
            bootstrap_iters=1000,
        )
    results = found["results"] if found else {}  # ranks other than the first get None
    return _values(distributed.run_on_first_rank(lambda: results))


def _sharing(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", batch_size: int) -> Any:
    """lm-eval's model, whose requests are shared out to all processes, a batch of questions of similar length each.

    lm-eval's own sharing wants to load the model itself, and gives values that depend on the number of processes.
    """
    from lm_eval.models.huggingface import HFLM

    def share(ask: Callable[..., list[Any]], requests: Sequence[Any]) -> list[Any]:
        questions = [
            list(own) for _, own in itertools.groupby(range(len(requests)), lambda i: _question(requests[i]))
        ]  # together, since answers to one question may share a forward
        questions.sort(key=lambda own: -len(requests[own[0]].args[0]))
        batches = [sum(questions[i : i + batch_size], []) for i in range(0, len(questions), batch_size)]
        return share_work(batches, lambda index: ask([requests[i] for i in index], True), "lm-eval", model)

    class Sharing(HFLM):
        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return share(super().loglikelihood, requests)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return share(super().loglikelihood_rolling, requests)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return share(super().generate_until, requests)

    kind = model.device.type
    mixed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None  # it would turn this off
    return Sharing(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=batch_size,
        mixed_precision_dtype=mixed,
        softmax_dtype=torch.float32,
    )


def _question(request: Any) -> tuple[str, int]:
    return request.task_name, request.doc_id


@contextlib.contextmanager
def _told(tasks: Sequence[str]) -> Iterator[None]:
    """lm-eval is quiet inside, and what it raises becomes one line."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # or it bootstraps in forks of a process that trains
    with silenced_libraries():
        try:
            yield
        except (OSError, ValueError, LookupError) as error:
            reason = one_line(error)
            raise ConfigError(f"eval.benchmarks: lm-eval cannot run {', '.join(tasks)} ({reason})") from None


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


@functools.cache
def _read(tasks: tuple[str, ...], folder: str | None) -> Any:
    """The index, which has read the tasks' data and gives them out for each evaluation."""
    manager = _manager(tasks, folder)
    found = manager.load(list(tasks))
    manager.load = lambda _: found
    return manager


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
