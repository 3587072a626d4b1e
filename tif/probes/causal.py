"""Find out whether a model reads forward only, and what its precision rounds away.

The model is on its device, in its precision and with its attention; before its weights load, a
small copy of it (small_copy.py) is looked at.

Shapes: T tokens, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch

from tif.config.errors import ConfigError, one_line
from tif.utils.torch_state import evaluation_mode

SCORED = 12  # tokens at either end of it whose scores are compared
ROUNDING = 2e-6  # share of a logit that float32 loses on its way through the layers
INT8_ROUNDING = 1 / 127
DIRECTION = 1e-3  # share of their spread by which later tokens may move logits: rounding, tiled
# What a forward raises that cannot read its input: every architecture has its own.
FORWARD_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError)


def check_causal(model: torch.nn.Module, ids: Sequence[int], key: str = "model.path") -> None:
    """Raise ConfigError if the model does not run, or its logits follow later tokens or padding.

    Args:
        model: as for `choose_batching`.
        ids: tokens of the longest text that the model will read.
        key: name of the key that names the model.
    """
    length = min(SCORED, len(ids) // 2)
    if not length:
        return
    # No number divides both lengths: a model that reads multiples of a chunk only is seen too.
    row = torch.tensor([list(ids[: max(2 * length - 1, 2)])], device=find_device(model))
    is_first_half = (torch.arange(row.shape[1], device=row.device) < length).long()[None]
    with evaluation_mode(model):
        alone = read_logits(model, row[:, :length], key)
        rounding = share_lost(model, alone.dtype)
        alone = alone.float()
        for options in ({}, {"attention_mask": is_first_half}):
            logits = read_logits(model, row, key, **options)[:length].float()
            error = (logits - alone).std(1) / alone.std(1)
            if error.median() > max(DIRECTION, 3 * rounding):
                raise ConfigError(
                    f"{key}: {type(model).__name__} is no causal LM, its logits change with "
                    "the tokens that follow or with padding; want another model"
                )


def read_logits(
    model: torch.nn.Module, ids: torch.Tensor, key: str = "model.path", **options: Any
) -> torch.Tensor:
    """Return the logits, (T, V), of a text, (1, T) token ids, by the model's own forward.

    Raises:
        ConfigError: If it does not run; `key` names the model.
    """
    try:
        logits: torch.Tensor = model(input_ids=ids, use_cache=False, **options).logits[0]
    except torch.OutOfMemoryError:
        raise
    except FORWARD_ERRORS as error:
        wanted = "another model"
        if getattr(model, "is_quantized", False):
            key, wanted = "model.quantize", "another kind of few bits, or none"
        problem = f"{type(model).__name__} does not run on {ids.shape[1]} tokens"
        raise ConfigError(f"{key}: {problem} ({one_line(error, 100)}); want {wanted}") from None
    return logits


def share_lost(model: torch.nn.Module, dtype: torch.dtype) -> float:
    """Return the share of a logit of this dtype that the model's precision may round away."""
    device = find_device(model)
    dtypes = {dtype, *(weight.dtype for weight in model.parameters())}
    if torch.is_autocast_enabled(device.type):
        dtypes.add(torch.get_autocast_dtype(device.type))
    coarsest = max(torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point)
    if torch.int8 in dtypes:  # LLM.int8 rounds activations, but not in columns with large ones,
        coarsest = max(coarsest, INT8_ROUNDING)  # and these are chosen anew in each forward
    return max(1.25 * coarsest, ROUNDING)  # right layouts were seen to stay below 0.9


def find_device(model: torch.nn.Module) -> torch.device:
    """Return the device of the model's weights."""
    return next(model.parameters()).device
