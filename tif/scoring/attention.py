"""Run attention sample by sample in a packed row on a CPU, through transformers' interface.

Called when a model is loaded (`use_sample_by_sample_attention`) and when a row is laid out
(`sample_borders`).

A packed row keeps its samples apart by a mask, and PyTorch's attention computes what the mask
hides: a row of N tokens costs N x N. Sample by sample a row may be long, which the matrix products
like. On CUDA a few large kernels are faster; flash attention, where it is installed, sees the
borders itself.

Measured with six layers of SmolLM2-135M's shape, float32, one core, samples of 60 tokens, forward
and backward, medians of five, microseconds a token: rows of 240 tokens 1799 under one mask and 1711
sample by sample; 480: 1871 and 1638; 960: 2184 and 1604.
"""

import os
from typing import TYPE_CHECKING, Any

import torch

from tif.utils.torch_state import find_in_code

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "tif_sample_by_sample"
ASKS_FOR_SDPA = r'_attn_implementation [^\n]*"sdpa"'


def row_kind(device: torch.device) -> str:
    """Return "cpu" or "cuda", the kind of device whose row lengths and attention are used.

    With TIF_ROWS=cuda in the environment a CPU takes those of a GPU: tests run them so.
    """
    is_cpu = device.type == "cpu" and os.environ.get("TIF_ROWS") != "cuda"
    return "cpu" if is_cpu else "cuda"


def use_sample_by_sample_attention(model: "PreTrainedModel") -> None:
    """Run a model's attention sample by sample if it is PyTorch's (`sdpa`); change no other.

    Left too are models whose code asks for the name, as DeepSeek 3.2: under another one it would
    attend to all tokens.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend_sample_by_sample)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    asks_for_name = any(find_in_code(module, ASKS_FOR_SDPA) for module in model.modules())
    if model.config._attn_implementation == "sdpa" and not asks_for_name:
        model.set_attn_implementation(NAME)


def sample_borders(model: torch.nn.Module, lengths: torch.Tensor) -> dict[str, Any]:
    """Return the arguments of `model.forward` that mark the samples of a packed row.

    Args:
        model: a causal LM.
        lengths: (B,) long, tokens of each sample.

    Returns:
        The borders as keyword arguments; {} where the model's attention does not run sample by
        sample.
    """
    config = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) != NAME or row_kind(lengths.device) != "cpu":
        return {}
    return {"cu_seq_lens_q": (0, *lengths.cumsum(0).tolist())}


def _attend_sample_by_sample(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Run transformers' own `sdpa` on each sample: (1, heads, N, d) each -> (1, N, heads, d).

    The mask is that of the row, cut to the sample: windows and the like stay as the model has them.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    borders = kwargs.get("cu_seq_lens_q")
    if not isinstance(borders, tuple):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    lengths = [end - start for start, end in zip(borders, borders[1:], strict=False)]
    # split, not slices: the gradient of each slice would be as long as the row
    pieces = zip(*(tensor.split(lengths, 2) for tensor in (query, key, value)), strict=True)
    outputs = []
    start = 0
    for query_part, key_part, value_part in pieces:
        sample = slice(start, start + query_part.shape[2])
        start = sample.stop
        mask = None if attention_mask is None else attention_mask[:, :, sample, sample]
        output, _ = sdpa_attention_forward(
            module, query_part, key_part, value_part, mask, **kwargs
        )
        outputs.append(output)
    return torch.cat(outputs, 1), None
