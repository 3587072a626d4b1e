"""General ability: tasks of the lm-eval package on a model that is loaded already.

Called by the evaluation callback of training, training/checks.py and model_numbers.py where
`eval.benchmarks` names tasks; needs the extra `lm-eval`.
"""

import contextlib
import difflib
import functools
import importlib.util
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

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


def check_tasks(tasks: Sequence[str], folder: str | None = None) -> None:
    """Raise ConfigError if lm-eval is not installed or has no such task or group of tasks.

    `folder`: of task files (YAML) besides lm-eval's own.
    """
    if importlib.util.find_spec("lm_eval") is None:
        wanted = "want pip install 'tif-unlearning[lm-eval]'"
        raise ConfigError(f"eval.benchmarks: lm-eval is not installed; {wanted}")
    known = _task_manager(tuple(tasks), folder).all_tasks
    for task in tasks:
        if task not in known:
            near = difflib.get_close_matches(task, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"eval.benchmarks: lm-eval has no task {task}{hint}")


def read_tasks(tasks: Sequence[str], folder: str | None = None) -> None:
    """Read the data of the tasks, once; what is not on disk is downloaded.

    Raises:
        ConfigError: If a task cannot be read (its data set is missing, for example).
    """
    with _errors_on_one_line(tasks):
        _loaded_task_manager(tuple(tasks), folder)


def run_tasks(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    tasks: Sequence[str],
    settings: LmEval,
) -> dict[str, tuple[float, float | None]]:
    """Return every metric of every task (and of a group's parts), as lm-eval computes them.

    The questions are divided over all processes; the values are those of one process. The model's
    mode and the global random state are restored, and a mixed precision that is on stays on.

    Returns:
        `lm-eval/<task>/<metric>` -> (value, standard error or None where lm-eval has none).

    Raises:
        ConfigError: If a task cannot be read or run.
    """
    from lightning.pytorch.utilities.seed import isolate_rng
    from lm_eval import evaluator

    with evaluation_mode(model), isolate_rng(), _errors_on_one_line(tasks):
        output = evaluator.simple_evaluate(
            _work_sharing_model(model, tokenizer, settings.batch_size),
            tasks=list(tasks),
            limit=settings.limit,
            task_manager=_loaded_task_manager(tuple(tasks), settings.folder),
            log_samples=False,
            bootstrap_iters=1000,
        )
    results = output["results"] if output else {}  # ranks other than the first get None
    return _read_results(distributed.run_on_first_rank(lambda: results))


def _work_sharing_model(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", batch_size: int
) -> Any:
    """Return lm-eval's wrapper of the model, with the requests divided over all processes.

    lm-eval's own division wants to load the model itself, and its values depend on the number of
    processes.
    """
    from lm_eval.models.huggingface import HFLM

    def share(answer: Callable[..., list[Any]], requests: Sequence[Any]) -> list[Any]:
        def answer_batch(indices: Sequence[int]) -> list[Any]:
            return answer([requests[i] for i in indices], True)

        return share_work(_batch_requests(requests, batch_size), answer_batch, "lm-eval", model)

    class WorkSharingModel(HFLM):
        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return share(super().loglikelihood, requests)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return share(super().loglikelihood_rolling, requests)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return share(super().generate_until, requests)

    mixed = None
    if torch.is_autocast_enabled(model.device.type):  # lm-eval would turn it off
        mixed = torch.get_autocast_dtype(model.device.type)
    return WorkSharingModel(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=batch_size,
        mixed_precision_dtype=mixed,
        softmax_dtype=torch.float32,
    )


def _batch_requests(requests: Sequence[Any], batch_size: int) -> list[list[int]]:
    """Return indices in batches of questions of similar length, the longest first.

    The requests of one question stay together, because they may share a forward.
    """

    def question(index: int) -> tuple[str, int]:
        return requests[index].task_name, requests[index].doc_id

    groups = itertools.groupby(range(len(requests)), question)
    questions = [list(indices) for _, indices in groups]
    questions.sort(key=lambda indices: -len(requests[indices[0]].args[0]))
    batches = []
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        batches.append(list(itertools.chain.from_iterable(batch)))
    return batches


@contextlib.contextmanager
def _errors_on_one_line(tasks: Sequence[str]) -> Iterator[None]:
    """Keep lm-eval quiet in the block and raise its errors as one-line ConfigErrors."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # Else it bootstraps in forks of a process that trains.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    with silenced_libraries():
        try:
            yield
        except (OSError, ValueError, LookupError) as error:
            problem = f"lm-eval cannot run {', '.join(tasks)} ({one_line(error)})"
            raise ConfigError(f"eval.benchmarks: {problem}") from None


def _read_results(results: dict[str, dict[str, Any]]) -> dict[str, tuple[float, float | None]]:
    """Return the metrics by our names; lm-eval has "<name>,<filter>", "<name>_stderr,<filter>"."""
    values = {}
    for task, metrics in results.items():
        for key, value in metrics.items():
            metric, _, filter_name = key.partition(",")
            is_number = isinstance(value, int | float)
            if metric in NOT_METRICS or metric.endswith("_stderr") or not is_number:
                continue
            error = metrics.get(f"{metric}_stderr,{filter_name}")
            if not isinstance(error, int | float) or not math.isfinite(error):
                error = None
            label = metric if filter_name in ("", "none") else f"{metric},{filter_name}"
            values[f"lm-eval/{task}/{label}"] = (float(value), error)
    return values


@functools.cache
def _task_manager(tasks: tuple[str, ...], folder: str | None) -> Any:
    """Return lm-eval's index of tasks; its own thousands only where the folder lacks one."""
    from lm_eval.tasks import TaskManager

    if folder is not None:
        manager = TaskManager(include_path=folder, include_defaults=False)
        if set(tasks) <= set(manager.all_tasks):
            return manager
    console.print("reading lm-eval's list of tasks")
    return TaskManager(include_path=folder)


@functools.cache
def _loaded_task_manager(tasks: tuple[str, ...], folder: str | None) -> Any:
    """Return the index with the tasks' data read; each evaluation gets the same data."""
    manager = _task_manager(tasks, folder)
    loaded = manager.load(list(tasks))
    manager.load = lambda _: loaded
    return manager
