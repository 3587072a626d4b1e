"""Two models as one: the start's logits lowered where the reinforced model's are higher (Who's Harry Potter).

z = z_start - alpha relu(z_reinforced - z_start), arXiv 2310.02238 section 2.1; as jaechan-repo/muse_bench
baselines/baselines/whos_harry_potter.py. What learning the forget set more makes likelier is what was learned from it.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import relu

from tif.models.references import Reference

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Lowered(torch.nn.Module):
    """Answers `forward` as a causal LM does, with the lowered logits in float32.

    Args:
        start: the original model.
        reinforced: the model that learned the forget set more; configuration and device are this one's.
        alpha: > 0; larger forgets more.
    """

    def __init__(self, start: torch.nn.Module, reinforced: "PreTrainedModel", alpha: float) -> None:
        super().__init__()
        self.start, self.reinforced, self.alpha = start, reinforced, alpha
        self.config = reinforced.config

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self.reinforced.device

    def new_cache(self) -> "_Caches":
        """An empty key-value cache for each of the models."""
        from transformers import DynamicCache

        return _Caches([DynamicCache(config=self.config) for _ in range(2)])

    def forward(self, past_key_values: "_Caches | None" = None, **inputs: Any) -> Any:
        """The keys of the models' own `forward`."""
        from transformers.modeling_outputs import CausalLMOutput

        own = [{"past_key_values": cache} for cache in past_key_values.each] if past_key_values else [{}, {}]
        models = (self.start, self.reinforced)
        start, more = (model(**keys, **inputs).logits.float() for model, keys in zip(models, own, strict=True))
        return CausalLMOutput(logits=start - self.alpha * relu(more - start))


@dataclasses.dataclass
class _Caches:
    each: list[Any]

    def batch_select_indices(self, rows: torch.Tensor) -> None:
        """Keep these rows."""
        for cache in self.each:
            cache.batch_select_indices(rows)


@dataclasses.dataclass
class LoweredReference:
    """The lowered logits as something to compare with; the models are no submodules of who holds it."""

    start: Reference
    reinforced: "PreTrainedModel"
    alpha: float

    def on(self, device: torch.device) -> Lowered:
        """Both models, there from now on."""
        reinforced: Any = self.reinforced
        return Lowered(self.start.on(device), reinforced.to(device), self.alpha).eval()
