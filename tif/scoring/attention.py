"""Attention within samples that stand end to end in one row, for transformers' `attn_implementation`.

A packed row keeps its samples apart by a mask, and PyTorch's attention computes what the mask hides: a row of N tokens
costs N x N. On a CPU it pays to run attention sample by sample, so that rows may be long, which matrix products like.
On CUDA a few large kernels win (flash attention, where it is installed, sees the borders itself).

Measured, six layers of SmolLM2-135M's shape, float32, one core, samples of 60 tokens, forward and backward, medians of
five, microseconds a token: rows of 240 tokens 1799 whole and 1711 sample by sample; 480: 1871 and 1638; 960: 2184 and
1604.
"""

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "tif_sample_by_sample"


def use(model: "PreTrainedModel") -> None:
    """Let a model whose attention is PyTorch's (`sdpa`) run it sample by sample; other models stay as they are."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def borders(model: torch.nn.Module, lengths: torch.Tensor) -> dict[str, Any]:
    """What `model.forward` must be told of a packed row's samples, (B,) long; nothing where `use` did nothing."""
    config = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) != NAME or lengths.device.type != "cpu":
        return {}
    return {"cu_seq_lens_q": (0, *lengths.cumsum(0).tolist())}


def _forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' own `sdpa` on each sample: (1, heads, N, d) each -> (1, N, heads, d).

    The mask is that of the whole row, cut to the sample: windows and the like stay as the model has them.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    edges = kwargs.get("cu_seq_lens_q")
    if not isinstance(edges, tuple):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    found = []
    lengths = [end - start for start, end in zip(edges, edges[1:], strict=False)]
    # split, not slices: the gradient of each slice would be as long as the row
    queries, keys, values = (t.split(lengths, 2) for t in (query, key, value))
    for start, q, k, v in zip(edges, queries, keys, values, strict=False):
        own = slice(start, start + q.shape[2])
        mask = None if attention_mask is None else attention_mask[:, :, own, own]
        found.append(sdpa_attention_forward(module, q, k, v, mask, **kwargs)[0])
    return torch.cat(found, 1), None
