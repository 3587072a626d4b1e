"""General ability: tasks of the package (and extra) lm-eval on a model that is loaded."""

import contextlib
import difflib
import functools
import importlib.util
import itertools
import logging
import math
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
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

RANGES = {
    "perplexity": (1.0, math.inf),
    "word_perplexity": (1.0, math.inf),
    "byte_perplexity": (1.0, math.inf),
    "bits_per_byte": (0.0, math.inf),
    "brier_score": (0.0, 2.0),
    "mcc": (-1.0, 1.0),
    "likelihood_diff": (-math.inf, math.inf),
}
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
        _load_tasks(tuple(tasks), folder)


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
    from lm_eval.evaluator import evaluate

    with evaluation_mode(model), isolate_rng(), _errors_on_one_line(tasks):
        loaded = _load_tasks(tuple(tasks), settings.folder)
        _prepare_tasks(loaded["tasks"].values())
        output = evaluate(
            _work_sharing_model(model, tokenizer, settings.batch_size),
            loaded,
            limit=settings.limit,
            log_samples=False,
            bootstrap_iters=1000,
        )
    results = output["results"] if output else {}  # ranks other than the first get None
    return _read_results(distributed.run_on_first_rank(lambda: results))


def _prepare_tasks(tasks: Iterable[Any]) -> None:
    """Set the seeds and the number of examples that lm-eval's `simple_evaluate` sets by default.

    `simple_evaluate` itself also asks git and the system about themselves, and git complains on
    stderr outside of a repository.
    """
    random.seed(0)
    np.random.seed(1234)
    torch.manual_seed(1234)
    for task in tasks:
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=1234)


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
def _load_tasks(tasks: tuple[str, ...], folder: str | None) -> Any:
    """Return the tasks with their data, read once; each evaluation gets the same data."""
    return _task_manager(tasks, folder).load(list(tasks))


def confidence_interval(name: str, value: float, error: float | None) -> tuple[float, float] | None:
    """Return value ± 1.96 standard errors, cut to the metric's range; None without an error.

    `name` is that of `run_tasks`. Metrics without an entry in RANGES are shares of 0 to 1; a value
    outside has no range that is known (BLEU and others count to 100).
    """
    if error is None:
        return None
    metric = name.rpartition("/")[2].partition(",")[0]
    lowest, highest = RANGES.get(metric, (0.0, 1.0))
    if not lowest <= value <= highest:
        lowest, highest = -math.inf, math.inf
    return max(lowest, value - 1.96 * error), min(highest, value + 1.96 * error)
