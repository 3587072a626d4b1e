"""Models that are made of models: Who's Harry Potter's lowered logits, and task arithmetic.

Who's Harry Potter (arXiv 2310.02238, section 2.1): where the logits of the reinforced model, which
learned the forget set further, are higher than the original's, the original's are lowered:
z = z_original - alpha * relu(z_reinforced - z_original), as jaechan-repo/muse_bench
baselines/baselines/whos_harry_potter.py. `loss.whp` evaluates a `WhpModel`, `loss.forget=whp` lets
the policy learn from one.

Task arithmetic (arXiv 2212.04089), trained on the forget set: `loss.task_vector` evaluates weights
on the other side of where they started, as muse_bench baselines/baselines/task_vector.py.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import relu

from tif.config.loss import Loss
from tif.models.references import ModelReference, Reference
from tif.scoring.forward import run_with_cache
from tif.scoring.token_scores import ModelContext, PerToken
from tif.utils.torch_state import set_training_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def make_unlearned(
    policy: "PreTrainedModel", reference: Reference | None, loss: Loss, train: str
) -> Callable[[], AbstractContextManager["PreTrainedModel"]]:
    """Return what opens a policy as it is evaluated and exported: itself, or made of it.

    Called before the first step: a task vector needs the weights of then.

    Args:
        policy: the model that will be trained.
        reference: the original model, for `loss.whp`.
        loss, train: the section, and `data.train`. Stages inherit the section, but target and
            retain models are what they were trained to be.
    """
    if loss.is_whp_at_inference(train):
        assert isinstance(reference, ModelReference)
        assert loss.whp is not None
        return partial(lowered_logits, reference, policy, loss.whp)
    if loss.task_vector and train == "forget":
        initial = [weight.detach().to("cpu", copy=True) for weight in policy.parameters()]
        return partial(negated_weights, policy, initial, loss.task_vector)
    return lambda: contextlib.nullcontext(policy)


class WhpReference(ModelReference):
    """The original model, and for terms that ask for them its lowered logits."""

    def __init__(
        self, original: ModelReference, reinforced: "PreTrainedModel", alpha: float
    ) -> None:
        super().__init__(original.model, original.batching)
        self.lowered = ModelReference(WhpModel(original, reinforced, alpha), original.batching)

    def use_model_for(self, per_token: PerToken) -> ModelContext:
        """Return what opens the model that a term reads distributions of."""
        return self.lowered.use_model if per_token.lowered else self.use_model


def lower_logits(
    reference: Reference | None, loss: Loss, load: Callable[[], "PreTrainedModel"]
) -> Reference | None:
    """Return the reference with the lowered logits where the loss learns them.

    `load`: returns the reinforced model, in the place and the precision of the policy.
    """
    if not loss.has_reinforced_model():
        return reference
    assert isinstance(reference, ModelReference)
    assert loss.whp is not None
    return WhpReference(reference, load(), loss.whp)


@contextlib.contextmanager
def negated_weights(
    model: "PreTrainedModel", initial: Sequence[torch.Tensor], alpha: float
) -> Iterator["PreTrainedModel"]:
    """Yield the model with initial - alpha * (trained - initial), alpha > 0, in its weights.

    `initial`: the weights before training, in the order of `model.parameters()`.
    """
    weights = list(model.parameters())
    trained = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, value in zip(weights, initial, strict=True):
            start = value.to(weight)
            weight.copy_(start - alpha * (weight - start))
    try:
        yield model
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, trained, strict=True):
                weight.copy_(value)


@contextlib.contextmanager
def lowered_logits(
    reference: ModelReference, reinforced: "PreTrainedModel", alpha: float
) -> Iterator[Any]:
    """Yield the `WhpModel` of the two models; the mode of `reinforced` is restored."""
    was_training = reinforced.training
    try:
        yield WhpModel(reference, reinforced, alpha).eval()
    finally:
        set_training_mode(reinforced, was_training)


@dataclasses.dataclass
class WhpCache:
    """The key-value caches of the two models (transformers' DynamicCache)."""

    original: Any
    reinforced: Any

    def reorder_cache(self, rows: torch.Tensor) -> None:
        """Keep these rows of the batch."""
        self.original.reorder_cache(rows)
        self.reinforced.reorder_cache(rows)


class WhpModel(torch.nn.Module):
    """A causal LM whose logits are the lowered ones, in float32; alpha > 0, larger forgets more."""

    def __init__(
        self, reference: ModelReference, reinforced: "PreTrainedModel", alpha: float
    ) -> None:
        super().__init__()
        self.reference, self.reinforced, self.alpha = reference, reinforced, alpha
        self.config = reinforced.config
        self.device, self.dtype = reinforced.device, reinforced.dtype

    def forward(self, cache: WhpCache | None = None, logits_to_keep: Any = 0, **inputs: Any) -> Any:
        """Return a CausalLMOutput with a WhpCache; takes the arguments of the models' `forward`."""
        from transformers.modeling_outputs import CausalLMOutput

        inputs["logits_to_keep"] = logits_to_keep
        caches = cache or WhpCache(None, None)
        with self.reference.use_model() as model:
            output, original_cache = run_with_cache(model, caches.original, inputs)
            original = output.logits.float()
        output, reinforced_cache = run_with_cache(self.reinforced, caches.reinforced, inputs)
        lowered = original - self.alpha * relu(output.logits.float() - original)
        lowered_output = CausalLMOutput(logits=lowered)
        lowered_output["cache"] = WhpCache(original_cache, reinforced_cache)
        return lowered_output
