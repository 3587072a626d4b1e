"""Checks of a run against the disk and the libraries, before weights load; each raises ConfigError.

`training/plan` collects the problems of all of them.
"""

import dataclasses
import os
import warnings
from typing import Any

import lightning as L
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from tif import losses
from tif.config.errors import ConfigError, brief, one_line
from tif.config.schema import Data, Loss, Model, TrainerKeys, Wandb
from tif.data.encoding import Encoder
from tif.data.samples import Benchmark, select_training_samples
from tif.models import load as models
from tif.scoring.block_output import count_blocks
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
        # A checkpoint is one file of tensors and plain values: torch unpickles those in shards.
        arguments["strategy"] = ModelParallelStrategy(
            distributed.world_size(), tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    return arguments


def check_trainer_and_loss(trainer: TrainerKeys, loss: Loss, data: Data, reference: str) -> None:
    """Raise ConfigError if Lightning refuses section `trainer`, or the loss cannot be computed.

    `reference` is the key `model.reference`.
    """
    arguments = trainer_arguments(trainer)
    arguments |= {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    try:
        with warnings.catch_warnings(action="ignore"):
            lightning_trainer = L.Trainer(**arguments, plugins=distributed.lightning_plugins())
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        problem = one_line(error).rstrip("!")
        if trainer.accelerator not in ("auto", "cpu") and "backend" in problem:
            name = f"trainer.accelerator: {trainer.accelerator}"
            raise ConfigError(f"{name}: {problem}; want auto or cpu on this machine") from None
        raise ConfigError(f"trainer: {problem}") from None
    if lightning_trainer.precision != trainer.precision:  # Lightning would go on with another one
        wanted = f"want {lightning_trainer.precision}"
        raise ConfigError(f"trainer.precision: {trainer.precision} needs a GPU; {wanted}")
    if reference == "cached" and losses.required_reference(loss, data.train) == "model":
        raise ConfigError(
            "model.reference: cached scores of the forget samples do not serve loss.forget="
            f"{loss.forget} loss.retain={loss.retain} loss.wording.share={loss.wording.share:g}; "
            "want frozen or auto"
        )


def check_wandb(settings: Wandb) -> None:
    """Raise ConfigError if the run is to be logged to W&B, and nobody is logged in there."""
    mode = os.environ.get("WANDB_MODE", "online")
    if not settings.enabled or settings.offline or mode not in ("online", "shared"):
        return
    import wandb

    later = "logger.wandb.offline=true (and `wandb sync` later)"
    try:
        is_logged_in = wandb.login(prompt=False)
    except wandb.Error as error:
        raise ConfigError(
            f"logger.wandb.enabled: W&B does not answer ({one_line(error)}); want {later}"
        ) from None
    if not is_logged_in:
        raise ConfigError(
            "logger.wandb.enabled: nobody is logged in to W&B; want WANDB_API_KEY in the "
            f"environment, `wandb login`, or {later}"
        )


def check_tokenizer(model: Model, data: Data) -> Encoder | None:
    """Return the model's encoder; None where its tokenizer is still to be made.

    Raises:
        ConfigError: If the tokenizer cannot be loaded or lacks the template.
    """
    if model.path is None:
        if data.prompts.is_chat:
            reason = "chat, but a tokenizer made for model.init has no chat template"
            raise ConfigError(f"data.template: {reason}")
        return None
    return Encoder(models.load_tokenizer(model, ()), data.prompts, data.overlap)


def check_hidden_layer(loss: Loss, model: Model) -> None:
    """Raise ConfigError if the loss reads hidden states of a layer that the model does not have."""
    layer = losses.hidden_layer(loss)
    if layer is None:
        return
    empty = models.build_empty(model)
    count = count_blocks(empty)
    if not count:
        problem = f"{empty.config.model_type} has no decoder blocks with one output for each token"
        raise ConfigError(f"loss.rmu.layer: {problem}; want another loss.forget")
    if layer >= count:
        raise ConfigError(f"loss.rmu.layer: the model has layers 0 to {count - 1}, got {layer}")


def check_samples(benchmark: Benchmark, data: Data, loss: Loss) -> None:
    """Raise ConfigError if the benchmark lacks the samples that the loss trains on."""
    name = benchmark.name
    if not select_training_samples(benchmark, data.train):
        raise ConfigError(f"data.train: the {data.train} set of {name} is empty")
    if not select_training_samples(benchmark, data.train, data.request):
        raise ConfigError(f"data.request: {name} has no forget sample whose id matches "
            f"{brief(data.request)}; want a pattern of ids such as {benchmark.forget[0].id}")
    has_alternates = losses.get_forget_term(loss).alternate
    if has_alternates and not all(sample.prompt for sample in benchmark.forget):
        raise ConfigError(
            f"loss.forget: {loss.forget} prefers other answers to questions, but {name} has texts "
            "without a prompt; want another"
        )
    if loss.retain != "none" and not benchmark.retain:
        raise ConfigError(f"loss.retain: {name} has no retain samples; want loss.retain=none")
