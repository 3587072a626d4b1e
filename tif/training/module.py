"""UnlearningModule: one forward of the policy a part of a step, whatever the loss is composed of.

Shapes: B samples, T tokens.
"""

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from tif import losses
from tif.config.loss import Dual
from tif.config.schema import Data, Loss, Optimizer, TrainerKeys
from tif.data.batch_splitting import split_batch, stack_batches
from tif.data.encoding import Batch
from tif.losses.terms import Scored, ScoredBatch, Term
from tif.models.derived import make_unlearned
from tif.models.references import ModelReference, Reference
from tif.scoring.attention import row_kind
from tif.scoring.token_scores import (
    TokenScores,
    ValueRequest,
    score_tokens,
    score_tokens_and_values,
)
from tif.training.optimizer import make_optimizer, make_schedule
from tif.utils.torch_state import set_training_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Tokens that a step scores at once. On a CPU, rows of 512 tokens make it 2 % faster than of 256.
STEP_TOKENS = {"cpu": 512, "cuda": 4096}


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What a training step reads of the configuration.

    Attributes:
        data, loss, optimizer, trainer: the sections.
        batching: "packed" or "padded", see `tif.scoring.token_scores.score_tokens`.
        seed: of the optimizer's draws (bfloat16 weights).
    """

    data: Data
    loss: Loss
    optimizer: Optimizer
    trainer: TrainerKeys
    batching: str
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class SampleGroup:
    """The forget samples of a step, their retain samples, or their alternates, with their term."""

    batch: Batch
    term: Term


class UnlearningModule(L.LightningModule):
    """The policy under training and the reference that it is compared with.

    Args:
        policy: a Hugging Face causal LM, on its device or in shards.
        settings: of the steps.
        reference: the original model's scores; None where the loss needs none. It is no submodule:
            neither optimizer nor checkpoint sees it.
    """

    retain_weight: torch.Tensor

    def __init__(
        self,
        policy: "PreTrainedModel",
        settings: StepSettings,
        reference: Reference | None = None,
    ) -> None:
        super().__init__()
        # With LoRA a checkpoint holds the adapters alone, see `on_save_checkpoint`.
        self.strict_loading = all(weight.requires_grad for weight in policy.parameters())
        self.automatic_optimization = False  # a step scores its batch in parts, as many as it has
        self.policy = policy
        self.settings = settings
        self.reference = reference
        loss = settings.loss
        self._open_unlearned = make_unlearned(policy, reference, loss, settings.data.train)
        self.forget_term = losses.get_forget_term(loss)
        self.retain_term = losses.get_retain_term(loss)
        has_dual = loss.dual.limit is not None and self.retain_term is not None
        self.dual = loss.dual if has_dual else None
        if self.dual:  # a buffer, so that a resumed run goes on with it
            self.register_buffer("retain_weight", torch.tensor(loss.retain_weight))

    def configure_model(self) -> None:
        """Do nothing: the policy is in its place. Lightning's FSDP2 strategy asks for the hook."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only the adapters with LoRA: the rest is the model that the run starts from."""
        if self._device_mesh is not None:
            return
        parameters = self.named_parameters(remove_duplicate=False)
        trained = {name for name, weight in parameters if weight.requires_grad}
        state = checkpoint["state_dict"]
        for name in list(state):
            if name.startswith("policy.") and name not in trained:
                del state[name]

    def on_train_epoch_start(self) -> None:
        """Put the policy in training mode: Lightning leaves it in that of `from_pretrained`."""
        set_training_mode(self.policy)

    def unlearned(self) -> contextlib.AbstractContextManager["PreTrainedModel"]:
        """Open the policy as it is evaluated and exported, see tif.models.derived."""
        return self._open_unlearned()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one optimizer step on a batch that all processes share; log the loss's parts.

        Each process scores its parts of the batch (`data.max_tokens_per_batch`), one after the
        other. The loss is that of the batch, however it is divided.

        Raises:
            FloatingPointError: If the loss is not finite, before the optimizer sees it; names the
                samples.
        """
        values = self.accumulate(batch)
        if not math.isfinite(values["loss"]):
            terms = [f"{name} {value:g}" for name, value in values.items() if name != "loss"]
            raise FloatingPointError(
                f"loss is {values['loss'].item()} at step {self.global_step} ({', '.join(terms)}) "
                f"on samples {', '.join(batch.ids)}; the weights were not changed by it. Try "
                "a lower optimizer.lr or trainer.precision=32-true."
            )
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizer, LightningOptimizer)
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        self._log_step({f"train/{name}": value for name, value in values.items()}, len(batch.ids))

    def _log_step(self, values: dict[str, torch.Tensor], batch_size: int) -> None:
        if self.dual:
            values["train/retain_weight"] = self.retain_weight.clone()
            self._move_retain_weight(self.dual, values["train/retain"])
        self.log_dict(values, batch_size=batch_size)
        # Rows count epochs from 1; 0 is the model before training.
        self.log("epoch", float(self.current_epoch + 1), batch_size=batch_size)
        self.step_values = {k: v for k, v in values.items() if not k.startswith("train/uw_")}

    def accumulate(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Leave the gradient of the batch's loss in the weights.

        Returns:
            The batch's loss and its parts by name, the same in every process.
        """
        processes, first = self.trainer.world_size, self.trainer.global_rank
        parts = self.parts(batch, processes)[first::processes]
        counts = losses.count_batch(batch, self.settings.loss)
        values: dict[str, torch.Tensor] = {}
        for number, positions in enumerate(parts, 1):
            # A process without samples takes part too: the others wait for its gradient of 0.
            if positions:
                part = batch.select_rows(positions)
            else:
                part = batch.select_rows([0]).without_answers()
            terms = self.loss(part, counts)
            with self._gradients_kept_local(number < len(parts)):
                # processes take the mean of their gradients
                self.manual_backward(terms.total * processes)
            for name, value in {"loss": terms.total, **terms.parts}.items():
                values[name] = value.detach() + values.get(name, 0)
        summed = self.trainer.strategy.reduce(torch.stack(list(values.values())), reduce_op="sum")
        return dict(zip(values, summed, strict=True))

    def parts(self, batch: Batch, processes: int = 1) -> list[list[int]]:
        """Return the positions of the samples that are scored at once, for all processes."""
        data, group = self.settings.data, losses.group_size(self.settings.loss)
        budget = data.max_tokens_per_batch or STEP_TOKENS[row_kind(batch.input_ids.device)]
        lengths = batch.lengths
        for pairs in (batch.retain, batch.alternate):
            if pairs is not None:
                lengths = lengths + pairs.lengths
        is_padded = self.settings.batching == "padded"
        return split_batch(lengths.tolist(), budget, processes, is_padded, group)

    def _gradients_kept_local(self, is_wanted: bool) -> contextlib.AbstractContextManager:
        """Return a context that, on request, does not exchange gradients with other processes."""
        strategy = self.trainer.strategy
        if is_wanted and isinstance(strategy, ParallelStrategy):
            return strategy.block_backward_sync()
        return contextlib.nullcontext()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, which Lightning leaves to modules with manual optimization."""
        if limit := self.settings.trainer.gradient_clip_val:
            self.clip_gradients(optimizer, limit, "norm")

    def loss(self, batch: Batch, counts: losses.BatchCounts | None = None) -> losses.LossTerms:
        """Return the loss of a batch, or its share in the batch with these counts.

        Forget, retain and alternate samples stand in the same packed rows, or the same padded
        rectangle, and go through the policy together.
        """
        groups = {"forget": SampleGroup(batch, self.forget_term)}
        if batch.retain is not None and self.retain_term is not None:
            groups["retain"] = SampleGroup(batch.retain, self.retain_term)
        if batch.alternate is not None:
            groups["alternate"] = SampleGroup(batch.alternate, self.forget_term)
        scored = dict(zip(groups, self._score(list(groups.values())), strict=True))
        return losses.compute_loss(
            ScoredBatch(scored["forget"], scored.get("retain"), scored.get("alternate")),
            batch,
            self.settings.loss,
            retain_weight=self.retain_weight.clone() if self.dual else None,
            counts=counts,
        )

    def _score(self, groups: list[SampleGroup]) -> list[Scored]:
        """Return what each group's term sees, from one forward of the policy over all groups."""
        stacked = stack_batches([group.batch for group in groups])
        requests: list[ValueRequest | None] = []
        first = 0
        for group in groups:
            requests.append(self._value_request(group, first))
            first += len(group.batch.ids)
        wanted = [request for request in requests if request is not None]
        batching, values = self.settings.batching, list[torch.Tensor]()
        if wanted:
            scores, values = score_tokens_and_values(self.policy, stacked, batching, wanted)
        else:
            chunk_tokens = self.settings.loss.chunk_tokens
            scores = score_tokens(self.policy, stacked, batching, chunk_tokens)
        scored = []
        first = 0
        for group, request in zip(groups, requests, strict=True):
            last, tokens = first + len(group.batch.ids), group.batch.input_ids.shape[1]
            per_token = None if request is None else values.pop(0)[:, : tokens - 1]
            policy = scores.samples(first, last, tokens)
            scored.append(Scored(policy, self._reference_scores(group), per_token))
            first = last
        return scored

    def _value_request(self, group: SampleGroup, first: int) -> ValueRequest | None:
        """Return what the group's term asks of distributions or hidden states; None = nothing."""
        if group.term.per_token is None:
            return None
        per_token, original = group.term.per_token(self.settings.loss), None
        if per_token.reference:
            assert isinstance(self.reference, ModelReference)
            original = self.reference.use_model_for(per_token)
        return ValueRequest(first, first + len(group.batch.ids), per_token, original)

    def _reference_scores(self, group: SampleGroup) -> TokenScores | None:
        if not group.term.reference:
            return None
        assert self.reference is not None
        return self.reference.scores(group.batch)

    def _move_retain_weight(self, dual: Dual, retain: torch.Tensor) -> None:
        """Move PDU's multiplier: up where the retain term is above its limit, else down to 0."""
        if self.current_epoch >= dual.warmup_epochs:
            self.retain_weight.add_(dual.step * (retain - (dual.limit or 0))).clamp_(min=0)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimizer and its schedule, which moves with every optimizer step."""
        settings, trainer = self.settings.optimizer, self.settings.trainer
        seed = self.settings.seed
        optimizer = make_optimizer(self.policy, settings, trainer.precision, seed)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = make_schedule(optimizer, settings, steps, trainer.max_epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
