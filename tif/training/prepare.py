"""Get ready what a run needs before its first step: policy, reference, alternate answers."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import init_device_mesh

from tif import losses
from tif._version import VERSION
from tif.config.model import Lora
from tif.config.schema import Config, Loss, Model
from tif.data.encoding import Encoder, collate
from tif.data.samples import Sample, fingerprint, select_training_samples
from tif.evaluation.alternate_answers import AlternateDraws, draw_alternates
from tif.evaluation.evaluate import find_longest_text
from tif.evaluation.questions import EvaluationSetup, list_longest_texts
from tif.models import fsdp
from tif.models.derived import lower_logits
from tif.models.load import describe_noise, load_policy, move_model, read_config
from tif.models.lora import freeze_idle_adapters
from tif.models.references import ModelReference, Reference, copy_policy, make_reference
from tif.probes.packed_rows import choose_batching
from tif.probes.text_length import check_length, read_context
from tif.training.datamodule import UnlearningDataModule
from tif.training.module import StepSettings, UnlearningModule
from tif.training.plan import Plan
from tif.training.stages import REINFORCED
from tif.utils import distributed
from tif.utils.hashing import hash_json, list_model_files
from tif.utils.terminal import console

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def prepare_training(
    plan: Plan, encoder: Encoder, trainer: L.Trainer
) -> tuple[UnlearningModule, UnlearningDataModule]:
    """Load the policy, take what it is compared with, and return what `Trainer.fit` needs.

    Args:
        plan: the run.
        encoder: with the policy's tokenizer.
        trainer: its strategy and precision are read.

    Raises:
        ConfigError: Before weights load, if a text is longer than the model can read.
    """
    cfg, loss = plan.cfg, plan.cfg.loss
    check_lengths(plan, encoder)
    in_shards = cfg.trainer.strategy == "fsdp2"
    is_empty = in_shards and not distributed.is_first_rank()
    device = trainer.strategy.root_device
    trainer.accelerator.setup_device(device)  # the current GPU, as Lightning does in fit
    policy = load_policy(cfg.model, encoder.tokenizer, cfg.run.seed, is_empty, device)
    noise = describe_noise(policy)
    if noise:
        console.print(noise, markup=False, soft_wrap=True)
    if in_shards:
        # All processes have to call the head as often: chunks are as many as one has answers for.
        loss = dataclasses.replace(loss, chunk_tokens=2**31)
    kind = choose_reference(cfg.model, loss, cfg.data.train)
    # Copied before it is placed: a shard cannot be copied.
    frozen = copy_policy(policy) if kind == "frozen" else None
    for model in (frozen, policy):
        if model is not None:
            place_model(model, trainer)
    # What the policy gives from here on is computed under the trainer's precision, as at step 0.
    with trainer.precision_plugin.forward_context():
        alternate_answers = prepare_alternates(policy, encoder, plan.benchmark.forget, cfg)
        data = UnlearningDataModule(
            plan.benchmark, encoder, cfg.data, loss, cfg.run.seed, alternate_answers
        )
        batching = choose_rows(plan, encoder, policy, data)
        if cfg.model.lora.rank:
            longest = max(data.items, key=lambda item: len(item.input_ids))
            batch = collate([longest], [0], encoder.pad_id).to(device)
            freeze_idle_adapters(policy, cfg.model.lora.targets, batch, batching)
        reference: Reference | None = None
        if frozen is not None:
            reference = ModelReference(frozen, batching)
        elif kind in ("cached", "adapter"):
            folder = Path(cfg.run.folder) / "references"
            reference = make_reference(kind, policy, data.items, encoder.pad_id, batching, folder)
    load = partial(load_reinforced, plan, encoder, trainer)
    reference = lower_logits(reference, loss, load)
    trainer_keys, seed = cfg.trainer, cfg.run.seed
    step = StepSettings(cfg.data, loss, cfg.optimizer, trainer_keys, batching, seed)
    return UnlearningModule(policy, step, reference), data


def load_reinforced(plan: Plan, encoder: Encoder, trainer: L.Trainer) -> "PreTrainedModel":
    """Return the model that learned the forget set more, in the place of the policy."""
    cfg, path = plan.cfg, str(plan.stage_folders[REINFORCED] / "model")
    settings = dataclasses.replace(cfg.model, path=path, lora=Lora(), quantize="none")
    model = load_policy(settings, encoder.tokenizer, cfg.run.seed).eval().requires_grad_(False)
    place_model(model, trainer)
    return model


def check_lengths(plan: Plan, encoder: Encoder) -> None:
    """Raise ConfigError if the model cannot read a text that the run trains on or evaluates."""
    cfg, context = plan.cfg, read_context(read_config(plan.cfg.model))
    if context is not None and cfg.data.max_tokens > context:
        data = cfg.data
        trained = select_training_samples(plan.benchmark, data.train, data.request)
        for sample in (*trained, *plan.benchmark.retain):
            tokens = len(encoder.encode(sample).input_ids)
            check_length(cfg.model, min(tokens, cfg.data.max_tokens), sample.id)
    for benchmark in (plan.benchmark, *plan.other_benchmarks.values()) if cfg.eval.enabled else ():
        setup = EvaluationSetup(encoder, cfg.eval, "", benchmark.tasks)
        check_length(cfg.model, *find_longest_text(setup, benchmark.sets, context))


def choose_reference(model: Model, loss: Loss, train: str) -> str:
    """Return the kind of reference that the loss needs: "none", or what `model.reference` says.

    "auto" is the cheapest that serves: cached scores, or for losses that read more of the original
    model the policy with its adapters off, or a frozen copy.
    """
    needed = losses.required_reference(loss, train)
    if needed == "none":
        return "none"
    if model.reference != "auto":
        return model.reference
    if needed == "model":
        return "adapter" if model.lora.rank else "frozen"
    return "cached"


def choose_rows(
    plan: Plan, encoder: Encoder, policy: "PreTrainedModel", data: UnlearningDataModule
) -> str:
    """Return "packed" or "padded", the same in all processes, for training and its evaluations."""
    if plan.cfg.trainer.strategy == "fsdp2":
        # All processes have to make the same number of forwards, and packed rows are as many as a
        # process has samples for.
        return "padded"
    texts = [item.input_ids for item in [*data.items, *(data.retain or ())]]
    if plan.cfg.eval.enabled:
        for benchmark in (plan.benchmark, *plan.other_benchmarks.values()):
            texts += list_longest_texts(encoder, benchmark.sets)
    wanted = plan.cfg.data.batching
    return distributed.run_on_first_rank(lambda: choose_batching(wanted, policy, texts))


def place_model(model: Any, trainer: L.Trainer) -> None:
    """Move a model to where it is trained (FSDP2: in shards), in the trainer's precision."""
    strategy = trainer.strategy
    if isinstance(strategy, ModelParallelStrategy):
        distributed.start_alone()
        device, size = strategy.root_device, distributed.world_size()
        mesh = init_device_mesh(device.type, (size,), mesh_dim_names=("data_parallel",))
        fsdp.shard_model(model, mesh, device, str(trainer.precision))
        return
    move_model(model, strategy.root_device)
    if not getattr(model, "is_quantized", False):
        trainer.precision_plugin.convert_module(model)  # in place


def prepare_alternates(
    policy: "PreTrainedModel", encoder: Encoder, forget: tuple[Sample, ...], cfg: Config
) -> dict[str, tuple[str, ...]] | None:
    """Return other answers to the forget questions by sample id (AltPO), kept in a file.

    None where the loss wants no generated answers.
    """
    settings, model = cfg.loss.alternates, cfg.model
    if settings.kind != "generated" or not losses.get_forget_term(cfg.loss).alternate:
        return None
    weights = [model.path, list_model_files(model.path), model.dtype, model.quantize]
    key = [
        VERSION,
        cfg.run.seed,
        dataclasses.asdict(settings),
        cfg.data.prompts.describe(),
        fingerprint(forget),
        [*weights, cfg.trainer.precision],
    ]
    file = Path(cfg.run.folder) / "alternates" / f"{hash_json(key)}.jsonl"
    draws = AlternateDraws(settings, cfg.run.seed, cfg.eval.tokens_per_batch, file)
    return draw_alternates(policy, encoder, forget, draws)
