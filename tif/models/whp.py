"""Who's Harry Potter: two models that answer as one (arXiv 2310.02238, section 2.1).

Where the logits of the reinforced model, which learned the forget set further, are higher than the
original's, the original's are lowered: z = z_original - alpha * relu(z_reinforced - z_original), as
jaechan-repo/muse_bench baselines/baselines/whos_harry_potter.py. UnlearningModule evaluates a
`WhpModel` (`loss.whp`), or lets the policy learn from one (`loss.forget=whp`).
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import relu

from tif.models.references import ModelReference

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclasses.dataclass
class WhpCache:
    """The key-value caches of the two models (transformers' DynamicCache)."""

    original: Any
    reinforced: Any

    def batch_select_indices(self, rows: torch.Tensor) -> None:
        """Keep these rows of the batch."""
        self.original.batch_select_indices(rows)
        self.reinforced.batch_select_indices(rows)


class WhpModel(torch.nn.Module):
    """A causal LM whose logits are the lowered ones, in float32; alpha > 0, larger forgets more."""

    def __init__(
        self, reference: ModelReference, reinforced: "PreTrainedModel", alpha: float
    ) -> None:
        super().__init__()
        self.reference, self.reinforced, self.alpha = reference, reinforced, alpha
        self.config, self.device = reinforced.config, reinforced.device

    def new_cache(self) -> WhpCache:
        """Return an empty key-value cache for each of the models."""
        from transformers import DynamicCache

        return WhpCache(DynamicCache(config=self.config), DynamicCache(config=self.config))

    def forward(self, past_key_values: WhpCache | None = None, **inputs: Any) -> Any:
        """Return a CausalLMOutput; takes the arguments of the models' own `forward`."""
        from transformers.modeling_outputs import CausalLMOutput

        caches = past_key_values or WhpCache(None, None)
        with self.reference.use_model() as model:
            original = model(past_key_values=caches.original, **inputs).logits.float()
        reinforced = self.reinforced(past_key_values=caches.reinforced, **inputs).logits.float()
        return CausalLMOutput(logits=original - self.alpha * relu(reinforced - original))
