"""What a run needs before its first step: the policy in its place, the reference, other models and other answers."""

import dataclasses
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.strategies import ModelParallelStrategy

import tif
from tif.config.model import Lora
from tif.config.schema import Config
from tif.data.samples import fingerprint
from tif.evaluation.alternate_answers import alternates
from tif.losses import required_reference
from tif.models import fsdp as sharding
from tif.models import load as models
from tif.models import references
from tif.models.whp import WhpModel, WhpReference
from tif.training.datamodule import UnlearningDataModule
from tif.training.module import UnlearningModule
from tif.utils.hashing import hash_json, list_model_files


def prepare(module: UnlearningModule, trainer: L.Trainer, data: UnlearningDataModule, reinforced: Path | None) -> None:
    """Put the policy where it is trained, in shards where the strategy is FSDP2; take what the loss needs of it."""
    cfg, policy, device = module.cfg, module.policy, trainer.strategy.root_device
    kind, needed = cfg.model.reference, required_reference(cfg.loss, cfg.data.train)
    if kind == "auto" and needed == "model":
        kind = "adapter" if cfg.model.lora.rank else "frozen"

    def take() -> references.Reference:
        cache = Path(cfg.run.folder) / "references"
        return references.make_reference(kind, policy, data.items, data.encoder.pad_id, module.batching, cache)

    precision = trainer.strategy.precision_plugin
    if isinstance(trainer.strategy, ModelParallelStrategy):
        if needed == "none" or kind != "frozen":
            copies: list[Any] = [policy]
        else:
            module.reference = take()
            assert isinstance(module.reference, references.FrozenReference)
            copies = [module.reference.model, policy]
        for model in copies:
            sharding.shard_model(model, trainer.strategy.device_mesh["data_parallel"], device, cfg.trainer.precision)
    else:
        policy.to(device)  # type: ignore[arg-type]
        precision.convert_module(policy)  # in place
    if needed != "none" and module.reference is None:
        # Under the trainer's precision, or the reference would not be what the policy says at step 0.
        with precision.forward_context():
            module.reference = take()
    if reinforced:
        assert module.reference is not None
        assert cfg.loss.whp is not None
        plain = dataclasses.replace(cfg.model, path=str(reinforced / "model"), lora=Lora(), quantize="none")
        model = models.load_policy(plain, data.encoder.tokenizer, cfg.run.seed).eval().requires_grad_(False)
        precision.convert_module(model)  # in place
        module.whp_reference = WhpReference(WhpModel(module.reference, model.to(device), cfg.loss.whp))
    if cfg.loss.alternates.kind == "generated" and module.terms[0].alternate:
        with precision.forward_context():
            data.alternates = _alternates(cfg, module, data)


def _alternates(cfg: Config, module: UnlearningModule, data: UnlearningDataModule) -> dict[str, tuple[str, ...]]:
    """Other answers to the forget questions, from <run.folder>/alternates where they are there."""
    model, own = cfg.model, dataclasses.asdict(cfg.loss.alternates)
    weights = [model.path, list_model_files(model.path), model.dtype, model.quantize, cfg.trainer.precision]
    what = [tif.__version__, cfg.run.seed, own, cfg.data.template, fingerprint(data.benchmark.forget), weights]
    file = Path(cfg.run.folder) / "alternates" / f"{hash_json(what)}.jsonl"
    return alternates(
        module.policy, data.encoder, data.benchmark.forget, cfg.loss.alternates, cfg.run.seed,
        cfg.eval.tokens_per_batch, file,
    )  # fmt: skip
