"""Who's Harry Potter: two models that answer as one (arXiv 2310.02238, section 2.1).

The reinforced model has learned the forget set further. Where its logits are higher than the
original's, the original's are lowered:

    z = z_original - alpha * relu(z_reinforced - z_original)

as jaechan-repo/muse_bench baselines/baselines/whos_harry_potter.py. UnlearningModule evaluates a
`WhpModel` (`loss.whp`) or lets the policy learn from a `WhpReference` (`loss.forget=whp`).
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import relu

from tif.models.references import Reference

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class WhpModel(torch.nn.Module):
    """A causal LM whose logits are the lowered ones, in float32.

    Args:
        reference: gives the original model.
        reinforced: the model that learned the forget set further, on the same device.
        alpha: > 0; larger values forget more.
    """

    def __init__(self, reference: Reference, reinforced: "PreTrainedModel", alpha: float) -> None:
        super().__init__()
        self.reference, self.reinforced, self.alpha = reference, reinforced, alpha
        self.config = reinforced.config

    @property
    def device(self) -> torch.device:
        """Return the device of both models."""
        return self.reinforced.device

    def new_cache(self) -> "WhpCache":
        """Return an empty key-value cache for each of the models."""
        from transformers import DynamicCache

        return WhpCache(DynamicCache(config=self.config), DynamicCache(config=self.config))

    def forward(self, past_key_values: "WhpCache | None" = None, **inputs: Any) -> Any:
        """Return a CausalLMOutput; takes the arguments of the models' own `forward`."""
        from transformers.modeling_outputs import CausalLMOutput

        original_cache, reinforced_cache = {}, {}
        if past_key_values is not None:
            original_cache = {"past_key_values": past_key_values.original}
            reinforced_cache = {"past_key_values": past_key_values.reinforced}
        with self.reference.use_model() as original:
            original_logits = original(**original_cache, **inputs).logits.float()
        reinforced_logits = self.reinforced(**reinforced_cache, **inputs).logits.float()
        gain = relu(reinforced_logits - original_logits)
        return CausalLMOutput(logits=original_logits - self.alpha * gain)


@dataclasses.dataclass
class WhpCache:
    """The key-value caches of the two models (transformers' DynamicCache)."""

    original: Any
    reinforced: Any

    def batch_select_indices(self, rows: torch.Tensor) -> None:
        """Keep these rows of the batch."""
        self.original.batch_select_indices(rows)
        self.reinforced.batch_select_indices(rows)


@dataclasses.dataclass
class WhpReference:
    """A WhpModel to compare with; no module, so that its holder does not count its weights."""

    model: WhpModel

    @contextlib.contextmanager
    def use_model(self) -> Iterator[WhpModel]:
        """Yield the model, without gradients."""
        with torch.no_grad():
            yield self.model.eval()
