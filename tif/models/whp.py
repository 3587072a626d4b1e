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
from tif.scoring.forward import run_with_cache

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
