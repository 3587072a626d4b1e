"""How many positions a model's config names. Called by context.py, small_copy.py and training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

NAMES = ("max_position_embeddings", "max_seq_len", "max_target_positions")
ORIGINAL = "original_max_position_embeddings"


def read_context(config: "PretrainedConfig") -> int | None:
    """Return the number of tokens that the model can read at once; None = any."""
    limits = (_find_positions(config), find_rope_limit(config))
    return min((limit for limit in limits if limit is not None), default=None)


def _find_positions(config: "PretrainedConfig") -> int | None:
    text_config = config.get_text_config()
    positions = (getattr(text_config, name, None) for name in NAMES)
    return next((count for count in positions if count is not None), None)


def find_rope_limit(config: "PretrainedConfig") -> int | None:
    """Return the length beyond which a text would change the scores of others in its batch."""
    text_config = config.get_text_config()
    ropes: Any = getattr(text_config, "rope_parameters", None) or {}
    nested = [rope for rope in ropes.values() if isinstance(rope, Mapping)]
    limits = []
    for rope in nested or [ropes]:
        if rope.get("rope_type") == "dynamic":
            limits.append(_find_positions(config))
        if rope.get("rope_type") == "longrope":
            limits.append(rope.get(ORIGINAL) or getattr(text_config, ORIGINAL, None))
    return min((limit for limit in limits if limit), default=None)
