"""UnlearningModule: one forward of the policy a step, whatever the loss is composed of."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from tif import losses
from tif.config.loss import Dual
from tif.config.schema import Config
from tif.data.batch_parts import split_batch
from tif.data.encoding import Batch
from tif.losses.terms import Scored, ScoredBatch, Term
from tif.models.references import Reference
from tif.models.whp import WhpModel, WhpReference
from tif.scoring.token_scores import step_tokens, token_scores, token_values

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class UnlearningModule(L.LightningModule):
    """The policy under training and the reference it is compared with.

    Args:
        policy: a Hugging Face causal LM.
        cfg: sections `data`, `loss`, `optimizer` and `trainer` are read.
        batching: "packed" or "padded", see scoring.token_scores.
        reference: None where the loss needs none. It is no submodule: neither optimizer nor checkpoint sees it.
        prepare: called once when the strategy is there and before a checkpoint is read: takes the reference from the
            policy as it is, cuts both into shards.
    """

    retain_weight: torch.Tensor
    whp_reference: WhpReference | None = None  # what forget=whp learns

    def __init__(
        self,
        policy: "PreTrainedModel",
        cfg: Config,
        batching: str,
        reference: Reference | None = None,
        prepare: Callable[["UnlearningModule"], None] | None = None,
    ) -> None:
        super().__init__()
        self._prepare = prepare
        self.strict_loading = all(p.requires_grad for p in policy.parameters())  # see `on_save_checkpoint`
        self.automatic_optimization = False  # a step scores its batch in parts, as many as it has
        self.policy, self.cfg, self.batching, self.reference = policy, cfg, batching, reference
        # Stages inherit the section, but target and retain models are what they were trained to be.
        self.negate = (cfg.loss.task_vector or 0.0) if cfg.data.train == "forget" else 0.0
        self.start = [p.detach().to("cpu", copy=True) for p in policy.parameters()] if self.negate else []
        self.terms = losses.get_forget_term(cfg.loss), losses.get_retain_term(cfg.loss)
        self.dual = cfg.loss.dual if cfg.loss.dual.limit is not None and cfg.loss.retain != "none" else None
        if self.dual:  # a buffer, so that a resumed run goes on with it
            self.register_buffer("retain_weight", torch.tensor(cfg.loss.retain_weight))

    def configure_model(self) -> None:
        """Lightning's place for it."""
        prepare, self._prepare = self._prepare, None
        if prepare:
            prepare(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """With LoRA only the adapters: the rest is the model that the run starts from. Shards are saved whole."""
        if self._device_mesh is None:
            trained = {name for name, p in self.named_parameters(remove_duplicate=False) if p.requires_grad}
            kept = {k: v for k, v in checkpoint["state_dict"].items() if k in trained or not k.startswith("policy.")}
            checkpoint["state_dict"] = kept

    def on_train_epoch_start(self) -> None:
        """Lightning leaves the mode of a model as it is; `from_pretrained` leaves it in eval."""
        self.policy.train()

    @contextlib.contextmanager
    def unlearned(self) -> Iterator["PreTrainedModel"]:
        """The policy as it is evaluated and exported.

        With `loss.whp` on a finetuned policy, the original model with logits lowered by the policy's: see models.whp.
        With `loss.task_vector`, the policy's weights are the negated ones inside.
        Task arithmetic, arXiv 2212.04089: start - alpha (trained - start), trained on the forget set; as
        jaechan-repo/muse_bench baselines/baselines/task_vector.py. Floating-point weights only.
        """
        if self.cfg.loss.is_whp_at_inference(self.cfg.data.train):
            assert self.reference is not None
            assert self.cfg.loss.whp is not None
            training = self.policy.training
            try:
                yield WhpModel(self.reference, self.policy, self.cfg.loss.whp).eval()  # type: ignore[misc]
            finally:
                self.policy.train(training)
            return
        trained = [p.detach().clone() for p in self.policy.parameters()] if self.negate else []
        with torch.no_grad():
            for p, start in zip(self.policy.parameters() if self.negate else (), self.start, strict=True):
                p.copy_(start.to(p) - self.negate * (p - start.to(p)))
        try:
            yield self.policy
        finally:
            with torch.no_grad():
                for p, own in zip(self.policy.parameters() if self.negate else (), trained, strict=True):
                    p.copy_(own)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One optimizer step on the batch, which all processes share; the loss's parts logged as `train/<part>`.

        Each process scores its parts of the batch (`data.max_tokens_per_batch`), one after the other. The loss is that
        of the whole batch, however it is split.

        Raises:
            FloatingPointError: If the loss is not finite, before the optimizer sees it; names the samples.
        """
        values = self.accumulate(batch)
        if not math.isfinite(values["loss"]):
            parts = ", ".join(f"{name} {value:g}" for name, value in values.items() if name != "loss")
            raise FloatingPointError(
                f"loss is {values['loss'].item()} at step {self.global_step} ({parts}) on samples "
                f"{', '.join(batch.ids)}; the weights were not changed by it. Try a lower optimizer.lr or "
                "trainer.precision=32-true."
            )
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizer, LightningOptimizer)
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        values = {f"train/{name}": value for name, value in values.items()}
        if self.dual:
            values["train/retain_weight"] = self.retain_weight.clone()
            self._move_retain_weight(self.dual, values["train/retain"])
        size = len(batch.ids)
        self.log_dict(values, batch_size=size)
        # Rows count epochs from 1; 0 is the model before training.
        self.log("epoch", float(self.current_epoch + 1), batch_size=size)
        self.step_values = {k: v for k, v in values.items() if not k.startswith("train/uw_")}

    def accumulate(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Leave the gradient of the batch's loss in the weights.

        Returns:
            The whole batch's loss and its parts by name, the same in every process.
        """
        processes, first = self.trainer.world_size, self.trainer.global_rank
        parts = self.parts(batch, processes)[first::processes]
        counts, values = losses.count_batch(batch, self.cfg.loss), dict[str, torch.Tensor]()
        for number, positions in enumerate(parts, 1):
            # A process without samples takes part too: the others wait for its gradient, which is 0.
            part = batch.select_rows(positions) if positions else batch.select_rows([0]).without_answers()
            terms = self.loss(part, counts)
            with self._alone(number < len(parts)):
                self.manual_backward(terms.total * processes)  # processes take the mean of their gradients
            for name, value in {"loss": terms.total, **terms.parts}.items():
                values[name] = value.detach() + values.get(name, 0)
        found = self.trainer.strategy.reduce(torch.stack(list(values.values())), reduce_op="sum")
        return dict(zip(values, found, strict=True))

    def parts(self, batch: Batch, processes: int = 1) -> list[list[int]]:
        """Positions of the batch's samples in the parts that are scored at once, for all processes."""
        if losses.whole_batch_key(self.cfg.loss):
            return [list(range(len(batch.ids)))] * processes
        budget = self.cfg.data.max_tokens_per_batch or step_tokens(batch.input_ids.device)
        lengths = sum(b.lengths for b in (batch, batch.retain, batch.alternate) if b)
        return split_batch(lengths.tolist(), budget, processes, self.batching == "padded")  # type: ignore[union-attr]

    def _alone(self, wanted: bool) -> contextlib.AbstractContextManager:
        """Where wanted, gradients inside are not yet exchanged with other processes."""
        strategy = self.trainer.strategy
        if wanted and isinstance(strategy, ParallelStrategy):
            return strategy.block_backward_sync()
        return contextlib.nullcontext()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient; Lightning leaves that to modules with an optimizer loop of their own."""
        if limit := self.cfg.trainer.gradient_clip_val:
            self.clip_gradients(optimizer, limit, "norm")

    def loss(self, batch: Batch, counts: losses.BatchCounts | None = None) -> losses.LossTerms:
        """The loss of a batch, or its share in the batch with these counts.

        One forward of the policy over its forget samples, and one over each other part.
        """
        forget, retain = self.terms
        return losses.compute_loss(
            ScoredBatch(
                self._scored(batch, forget),
                self._scored(batch.retain, retain) if batch.retain and retain else None,
                self._scored(batch.alternate, forget) if batch.alternate else None,
            ),
            batch,
            self.cfg.loss,
            retain_weight=self.retain_weight.clone() if self.dual else None,
            counts=counts,
        )

    def _scored(self, batch: Batch, term: Term) -> Scored:
        """One forward of the policy over the batch, and what `term` needs beside it."""
        reference = None
        if term.reference:
            assert self.reference is not None
            reference = self.reference.scores(batch)
        if term.per_token is None:
            return Scored(token_scores(self.policy, batch, self.batching, self.cfg.loss.chunk_tokens), reference)
        own, original = term.per_token(self.cfg.loss), None
        if own.reference:
            compared = self.whp_reference if own.lowered else self.reference
            assert compared is not None
            original = compared.use_model
        policy, values = token_values(self.policy, batch, self.batching, own, original)
        return Scored(policy, reference, values)

    def _move_retain_weight(self, dual: Dual, retain: torch.Tensor) -> None:
        """The multiplier's step of PDU: up where the retain term is above its limit, down to 0 where it is below."""
        if self.current_epoch >= dual.warmup_epochs:
            self.retain_weight.add_(dual.step * (retain - (dual.limit or 0))).clamp_(min=0)

    def _adamw(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        lr, name = self.cfg.optimizer.lr, self.cfg.optimizer.name
        if name == "adamw":
            # Lightning refuses to clip gradients for a fused optimizer under mixed precision.
            return torch.optim.AdamW(groups, lr=lr, fused="mixed" not in self.cfg.trainer.precision)
        from bitsandbytes import optim

        kinds = {"adamw8bit": "AdamW8bit", "paged_adamw": "PagedAdamW", "paged_adamw8bit": "PagedAdamW8bit"}
        return getattr(optim, kinds[name])(groups, lr=lr)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW (no decay on biases and norms) with linear warm-up, then linear decay to 0 or constant."""
        cfg = self.cfg.optimizer
        weights = [p for p in self.policy.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in weights if p.dim() > 1], "weight_decay": cfg.weight_decay},
            {"params": [p for p in weights if p.dim() <= 1], "weight_decay": 0.0},
        ]
        optimizer = self._adamw(groups)
        total = int(self.trainer.estimated_stepping_batches)
        warmup = round(cfg.warmup_epochs * total / self.cfg.trainer.max_epochs)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            return (total - step) / max(total - warmup, 1) if cfg.decay == "linear" else 1.0

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
