"""Checks of a run against the disk and the libraries, before weights load; each raises ConfigError.

Called by `training/plan`, which collects the problems of all of them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from tif import losses
from tif.config.errors import ConfigError, one_line
from tif.config.schema import Data, Eval, Loss, Model, TrainerKeys
from tif.data import benchmarks
from tif.data.encoding import Encoder
from tif.data.samples import Benchmark
from tif.evaluation import lm_eval_tasks
from tif.evaluation.questions import compared_sets, find_expected_mismatch
from tif.models import load as models
from tif.records import files as records
from tif.utils import distributed


def trainer_arguments(settings: TrainerKeys) -> dict[str, Any]:
    """Return section `trainer` as the arguments of lightning.Trainer."""
    arguments = dataclasses.asdict(settings)
    del arguments["gradient_clip_val"]  # UnlearningModule clips
    if settings.devices.isdigit():
        arguments["devices"] = int(settings.devices)
    if distributed.world_size() > 1:  # srun or torchrun decided
        arguments["devices"] = distributed.local_world_size()
        arguments["num_nodes"] = distributed.world_size() // distributed.local_world_size()
    if settings.strategy == "fsdp2":
        size = distributed.world_size()
        arguments["strategy"] = ModelParallelStrategy(size, tensor_parallel_size=1)
    return arguments


def count_processes(settings: TrainerKeys) -> int:
    """Return the number of processes that section `trainer` asks for.

    Raises:
        ConfigError: If Lightning refuses the section.
    """
    try:
        trainer = L.Trainer(
            **trainer_arguments(settings),
            plugins=distributed.lightning_plugins(),
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        raise ConfigError(f"trainer: {one_line(error)}") from None
    return trainer.world_size


def check_parts(loss: Loss, data: Data, processes: int) -> None:
    """Raise ConfigError if a batch has to be divided and the loss needs all of it at once."""
    key = losses.whole_batch_key(loss)
    budget = data.max_tokens_per_batch
    if key is None or (not budget and processes == 1):
        return
    divided_by = f"data.max_tokens_per_batch={budget}" if budget else f"{processes} processes"
    name, value = key.split("=")
    raise ConfigError(
        f"{name}: {value} looks at all samples of a batch together, which cannot be shared out for "
        f"{divided_by}; want another, or one process and null"
    )


def check_reference(loss: Loss, train: str, reference: str) -> None:
    """Raise ConfigError if `model.reference` does not serve the loss."""
    if reference == "cached" and losses.required_reference(loss, train) == "model":
        raise ConfigError(
            "model.reference: cached scores of the forget samples do not serve loss.forget="
            f"{loss.forget} loss.retain={loss.retain}; want frozen or auto"
        )


def check_tokenizer(model: Model, data: Data) -> None:
    """Raise ConfigError if the model's tokenizer cannot be loaded or lacks the template."""
    if model.path is None:
        if data.template == "chat":
            raise ConfigError(
                "data.template: chat, but a tokenizer made for model.init has no chat template"
            )
        return
    try:
        tokenizer = models.load_tokenizer(model, ())
    except (OSError, ValueError, TypeError, LookupError, ImportError) as error:
        reason = f"no tokenizer that can be loaded ({one_line(error)})"
        raise ConfigError(f"model.path: {model.path}: {reason}") from None
    Encoder(tokenizer, data.template, data.overlap)


def check_hidden_layer(loss: Loss, model: Model) -> None:
    """Raise ConfigError if the loss reads hidden states of a layer that the model does not have."""
    layer = losses.hidden_layer(loss)
    if layer is None:
        return
    count = models.count_layers(model)
    if layer >= count:
        raise ConfigError(f"loss.rmu.layer: the model has layers 0 to {count - 1}, got {layer}")


def check_samples(benchmark: Benchmark, train: str, loss: Loss) -> None:
    """Raise ConfigError if the benchmark lacks the samples that the loss trains on."""
    name = benchmark.name
    if not benchmarks.select_training_samples(benchmark, train):
        raise ConfigError(f"data.train: the {train} set of {name} is empty")
    has_alternates = losses.get_forget_term(loss).alternate
    if has_alternates and not all(sample.prompt for sample in benchmark.forget):
        raise ConfigError(
            f"loss.forget: {loss.forget} prefers other answers to questions, but {name} has texts "
            "without a prompt; want another"
        )
    if loss.retain != "none" and not benchmark.retain:
        raise ConfigError(f"loss.retain: {name} has no retain samples; want loss.retain=none")


def check_lm_eval(tasks: Sequence[str], folder: str | None) -> None:
    """Raise ConfigError if lm-eval or one of its tasks is missing; their data is read now."""
    if tasks:
        lm_eval_tasks.check_tasks(tasks, folder)
        lm_eval_tasks.read_tasks(tasks, folder)


def read_retain_records(path: str) -> records.Evaluation:
    """Return the records that `eval.retain_records` names; raise ConfigError if there are none."""
    try:
        return records.read_evaluation(path)
    except (OSError, ValueError) as error:
        wanted = "want the eval folder of a retain model's run or a stage's name"
        reason = f"{wanted} ({one_line(error)})"
        raise ConfigError(f"eval.retain_records: {path}: {reason}") from None


def check_compared_sets(benchmark: Benchmark, comparison: str) -> None:
    """Raise ConfigError if the benchmark lacks a set that is compared with the retain model's.

    Args:
        benchmark: of the run.
        comparison: what is computed from the sets: forget quality or PrivLeak.
    """
    for name in compared_sets(benchmark):
        if name not in benchmark.sets:
            raise ConfigError(
                f"eval.forget_quality: {comparison} needs {name}, which {benchmark.name} does not "
                "have (no holdout texts?); want eval.forget_quality=false"
            )


def check_retain_records(
    retain: records.Evaluation, benchmark: Benchmark, settings: Eval, family: str | None
) -> None:
    """Raise ConfigError if the first evaluation could not be compared with the retain records.

    Args:
        retain: the retain model's records.
        benchmark: what the policy will be asked.
        settings: section `eval`.
        family: of the policy, as records name it.
    """
    problem = find_expected_mismatch(retain, benchmark, settings, family)
    if problem:
        raise ConfigError(f"eval.retain_records: {settings.retain_records}: {problem}")
