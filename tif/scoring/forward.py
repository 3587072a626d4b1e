"""Call a causal LM for selected logits, whichever arguments its `forward` accepts.

Called by scoring and generation.
"""

import inspect
from typing import Any

import torch

# What transformers calls a model's past, as an argument and in the output: since 5.20 "cache", and
# before by the kind of model.
CACHES = ("cache", "past_key_values", "cache_params", "state")


def keeps_logits(model: torch.nn.Module) -> bool:
    """Return whether the model's `forward` knows the argument `logits_to_keep`."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def run_model(model: torch.nn.Module, inputs: dict[str, Any], **options: Any) -> Any:
    """Return the model's output, whose logits are those at the positions `logits_to_keep`.

    A model that does not know this argument computes all logits; the others are dropped.

    Args:
        model: a Hugging Face causal LM.
        inputs: arguments of its `forward`, with `logits_to_keep`: (K,) positions in the row.
        options: more arguments.
    """
    if keeps_logits(model):
        return model(**inputs, **options)
    known = {key: value for key, value in inputs.items() if key != "logits_to_keep"}
    output = model(**known, **options)
    output.logits = output.logits[:, inputs["logits_to_keep"]]
    return output


def run_with_cache(model: torch.nn.Module, cache: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
    """Return the output of a model that continues from a cache, and the output's cache or None.

    Args:
        model: a Hugging Face causal LM, or a WhpModel.
        cache: what the last call returned; None = nothing was read so far.
        inputs: the other arguments of its `forward`.
    """
    parameters = inspect.signature(model.forward).parameters
    name = next((name for name in CACHES if name in parameters), CACHES[1])
    output = model(**inputs, **{name: cache})
    caches = [output[name] for name in CACHES if output.get(name) is not None]
    return output, caches[0] if caches else None
