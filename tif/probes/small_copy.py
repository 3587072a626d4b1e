"""A small copy of a model, made from its configuration alone, to be probed before weights load.

A probe of it shows what is a property of the
architecture: whether logits follow later tokens, and whether packed rows keep short samples apart.
What depends on the length of texts (windows, masks) only the probe of the model itself shows:
windows, chunks and positions stay as they are, widths, layers and vocabulary shrink.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from tif.probes.causal import check_causal
from tif.probes.packed_rows import find_packing_fault, refuse_packing
from tif.probes.text_length import find_rope_limit
from tif.scoring.attention import use_sample_by_sample_attention
from tif.utils.torch_state import seeded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VOCABULARY = 128
INNER = 32  # width of feed-forward layers and experts at most
MOST_EXPERTS = 32
NARROW = 64  # width that stays: leaks in a narrower model are small
MOST_LAYERS = 4  # of different kinds
MOST_WEIGHTS = 30_000_000  # a larger copy takes seconds
DEVIATION = 0.1  # of weights: so wide that a leak between tokens shows
CLEAR = 1e-3  # nats a token; what is less may be a choice among random experts
TEXT = range(3, 35)  # token ids
# Names of keys in transformers' configurations.
HEADS = re.compile(r"(n_head|heads|groups)$")
WIDTHS = re.compile(
    r"hidden_size|n_embd|d_model|dim$|width|d_ssm|heads?$|_size_per_head|lora_rank|groups$"
)
NO_WIDTHS = re.compile(r"head_dim|rope|conv|state|patch|image|axial|experts")
EXPERTS = re.compile(r"^(moe_)?(num|n)_(local_|routed_)?experts$")
INNERS = re.compile(r"intermediate_size|ffn_(hidden_)?(dim|size)|n_inner|d_ff")
LAYER_COUNTS = re.compile(r"(num_hidden|n|num|decoder)_layers?$|depth$")


@dataclasses.dataclass(frozen=True)
class RowSettings:
    """Settings of the rows: packed or padded, and where the model will run."""

    wanted: str = "auto"  # or "packed", "padded"
    device: torch.device | str = "cpu"
    key: str = "data.batching"  # name of the key that holds `wanted`


def check_small_copy(model: "PreTrainedModel", rows: RowSettings, key: str = "model.path") -> None:
    """Raise ConfigError if the model is no causal LM, or packed rows are wanted and are wrong.

    Says nothing where no small copy can be made, or where it does not run.

    Args:
        model: on the meta device; its weights are not read.
        rows: settings of the rows.
        key: name of the key that names the model.
    """
    small: Any = build_small_copy(model)
    if small is None:
        return
    # A longer text would change the positions of all: it is refused where lengths are checked.
    text = list(TEXT[: find_rope_limit(model.config)])
    try:
        small.to(rows.device)
        with torch.no_grad():
            small(input_ids=torch.tensor([text], device=rows.device), use_cache=False)
    except Exception:  # every architecture has its own
        return
    check_causal(small, text, key)
    if rows.wanted == "packed":
        refuse_packing(rows.key, find_packing_fault(small, text, CLEAR))


def build_small_copy(model: "PreTrainedModel") -> "PreTrainedModel | None":
    """Return a model of the same class with small sizes and random weights.

    None where none can be made: in each architecture sizes depend on each other in another way.
    """
    values = shrink_config(model.config.to_dict())
    if "initializer_range" in values:
        values["initializer_range"] = DEVIATION
    make: Any = type(model)._from_config
    attention = model.config._attn_implementation
    try:
        config = type(model.config).from_dict(values)
        with torch.device("meta"):
            empty = make(config, attn_implementation=attention)
        if sum(weight.numel() for weight in empty.parameters()) > MOST_WEIGHTS:
            return None
        with seeded(0):
            small: PreTrainedModel = make(config, attn_implementation=attention)
    except Exception:  # every architecture has its own
        return None
    use_sample_by_sample_attention(small)
    return small.eval()


def shrink_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's keys with small sizes: all widths divided by the same number."""
    counts = [value for name, value in values.items() if HEADS.search(name) and _is_count(value)]
    factor = math.gcd(*counts) if counts else 8
    if values.get("hidden_size", NARROW + 1) <= NARROW:
        factor = 1
    small: dict[str, Any] = {}
    for name, value in values.items():
        small[name] = value
        if isinstance(value, Mapping) and name.endswith("_config"):
            small[name] = shrink_config(value)
        elif type(value) is int:
            small[name] = _shrink(name, value, factor, "expand" in values)
    return small | _pick_layers(values)


def _shrink(name: str, value: int, factor: int, has_expand: bool) -> int:
    """Return the small value of a key that holds a whole number."""
    if "vocab_size" in name:
        return VOCABULARY
    if name.endswith("token_id"):
        return min(value, VOCABULARY - 1)
    if INNERS.search(name) and not has_expand:  # Mamba's follows from the hidden size
        return min(value, INNER)
    if EXPERTS.search(name):
        return min(value, MOST_EXPERTS)
    if WIDTHS.search(name) and not NO_WIDTHS.search(name):
        return max(1, value // factor)
    return value


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 1


def _pick_layers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the layer lists of a configuration cut to a layer of each kind, two at least."""
    names = [name for name in values if LAYER_COUNTS.search(name) and _is_count(values[name])]
    if not names:
        return {}
    count = values[names[0]]
    lists = {}
    for name, value in values.items():
        if isinstance(value, list | tuple) and len(value) == count:
            lists[name] = value
    kinds = [str([value[layer] for value in lists.values()]) for layer in range(count)]
    first_of_kind = [layer for layer, kind in enumerate(kinds) if kind not in kinds[:layer]]
    picked = sorted({*first_of_kind[:MOST_LAYERS], 0, 1})
    small = {name: [value[layer] for layer in picked] for name, value in lists.items()}
    return dict.fromkeys(names, len(picked)) | small
