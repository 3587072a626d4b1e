"""Get ready what a run needs before its first step: the policy in its place, what it is compared with, other answers.

Called by `tif.training.run`, one plain call each, before `Trainer.fit`.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import init_device_mesh

import tif
from tif.config.model import Lora
from tif.config.schema import Loss, Model
from tif.data.encoding import Encoded, Encoder
from tif.data.samples import Sample, fingerprint
from tif.evaluation.alternate_answers import alternates
from tif.losses import required_reference
from tif.models import fsdp
from tif.models.load import load_policy
from tif.models.references import FrozenReference, Reference, make_reference
from tif.models.whp import WhpModel, WhpReference
from tif.utils import distributed
from tif.utils.hashing import hash_json, list_model_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclasses.dataclass(frozen=True)
class ReferenceSettings:
    """How the reference is taken.

    Attributes:
        kind: "none", "cached", "adapter" or "frozen".
        batching: "packed" or "padded".
        folder: keeps cached scores for other runs.
    """

    kind: str
    batching: str
    folder: Path


def reference_kind(model: Model, loss: Loss, train: str) -> str:
    """Return the kind of reference that the loss needs: "none", or what `model.reference` says.

    "auto" is the cheapest that serves: cached scores, or for losses that read more of the original model the policy
    with its adapters off, or a frozen copy.
    """
    needed = required_reference(loss, train)
    if needed == "none":
        return "none"
    if model.reference != "auto":
        return model.reference
    if needed == "model":
        return "adapter" if model.lora.rank else "frozen"
    return "cached"


def place_policy(
    policy: "PreTrainedModel", trainer: L.Trainer, settings: ReferenceSettings
) -> FrozenReference | None:
    """Move the policy to where it is trained, in shards where the strategy is FSDP2.

    Args:
        policy: as it is before training; changed in place.
        trainer: its strategy and precision are read.
        settings: of the reference.

    Returns:
        The copy of the policy where `settings.kind` is "frozen": it is taken first, since a shard cannot be copied.
    """
    if settings.kind != "frozen":
        _place(policy, trainer)
        return None
    reference = FrozenReference(policy, settings.batching)
    _place(reference.model, trainer)
    _place(policy, trainer)
    return reference


def take_reference(
    policy: "PreTrainedModel",
    trainer: L.Trainer,
    settings: ReferenceSettings,
    forget: list[Encoded],
    pad_id: int,
) -> Reference | None:
    """Return a reference that the policy itself gives, in its place and before it changes.

    Args:
        policy: the policy.
        trainer: its precision is read: the reference is what the policy gives at step 0.
        settings: of the reference.
        forget: encoded forget samples, whose scores a cached reference holds.
        pad_id: padding's id.

    Returns:
        The reference; None where `settings.kind` is "none".
    """
    if settings.kind == "none":
        return None
    with trainer.precision_plugin.forward_context():
        return make_reference(
            settings.kind, policy, forget, pad_id, settings.batching, settings.folder
        )


def _place(model: Any, trainer: L.Trainer) -> None:
    strategy = trainer.strategy
    if isinstance(strategy, ModelParallelStrategy):
        device = strategy.root_device
        mesh = init_device_mesh(device.type, (distributed.world_size(),), mesh_dim_names=("data_parallel",))
        fsdp.shard_model(model, mesh, device, str(trainer.precision))
        return
    model.to(strategy.root_device)
    trainer.precision_plugin.convert_module(model)  # in place


def load_whp_reference(
    model: Model,
    reinforced: Path,
    reference: Reference,
    tokenizer: "PreTrainedTokenizerBase",
    trainer: L.Trainer,
    alpha: float,
) -> WhpReference:
    """Return what forget=whp learns: the original's logits, lowered where the reinforced model's are higher.

    Args:
        model: section `model` of the run.
        reinforced: run folder of the model that learned the forget set more.
        reference: the original model.
        tokenizer: of the policy.
        trainer: its precision is that of the reinforced model.
        alpha: loss.whp.
    """
    plain = dataclasses.replace(model, path=str(reinforced / "model"), lora=Lora(), quantize="none")
    loaded = load_policy(plain, tokenizer, seed=0).eval().requires_grad_(False)
    trainer.precision_plugin.convert_module(loaded)  # in place
    return WhpReference(WhpModel(reference, loaded.to(trainer.strategy.root_device), alpha))


@dataclasses.dataclass(frozen=True)
class AlternateSettings:
    """What decides about the answers that a model gives in place of the forget answers (AltPO).

    Attributes:
        model, loss: the sections.
        precision: trainer.precision.
        seed: run.seed, owner of the draws.
        tokens_per_batch: eval.tokens_per_batch.
        folder: run.folder; the answers are kept in its `alternates/`.
    """

    model: Model
    loss: Loss
    precision: str
    seed: int
    tokens_per_batch: int
    folder: Path


def draw_alternates(
    policy: "PreTrainedModel", encoder: Encoder, forget: tuple[Sample, ...], settings: AlternateSettings
) -> dict[str, tuple[str, ...]]:
    """Return other answers to the forget questions by sample id, read from their file where they are there."""
    model, section = settings.model, settings.loss.alternates
    weights = [model.path, list_model_files(model.path), model.dtype, model.quantize, settings.precision]
    key = [
        tif.__version__,
        settings.seed,
        dataclasses.asdict(section),
        encoder.template,
        fingerprint(forget),
        weights,
    ]
    file = settings.folder / "alternates" / f"{hash_json(key)}.jsonl"
    return alternates(
        policy, encoder, forget, section, settings.seed, settings.tokens_per_batch, file
    )
