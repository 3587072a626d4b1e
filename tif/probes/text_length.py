"""Find how many tokens a model can read at once, from its config, before its weights load."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from tif.config.errors import ConfigError
from tif.config.model import Model
from tif.models.load import read_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig

NAMES = ("max_position_embeddings", "max_seq_len", "max_target_positions")
ORIGINAL = "original_max_position_embeddings"


def check_length(settings: Model, tokens: int, sample: str) -> None:
    """Raise ConfigError if the model of section `model` cannot read a sample of so many tokens.

    A model may read more than its context: RoPE turns by any position.
    """
    config = read_config(settings)
    context, limit = read_context(config), find_rope_limit(config)
    if context is None or tokens <= context - _count_lost_positions(config, context):
        return
    if limit is None:
        limit = _find_table_limit(config, context, settings.trust_remote_code)
    if limit is not None and tokens > limit:
        raise ConfigError(
            f"model.path: {settings.path} reads {limit} tokens at once, the sample {sample} has "
            f"{tokens} with its answer; want shorter samples or another model"
        )


def _count_lost_positions(config: "PretrainedConfig", context: int) -> int:
    """Return how many positions a table may lose: RoBERTa's start after that of padding."""
    pad_id = getattr(config.get_text_config(), "pad_token_id", None)
    return pad_id + 1 if isinstance(pad_id, int) and 0 <= pad_id < context // 2 else 0


def _find_table_limit(config: "PretrainedConfig", positions: int, trusted: bool) -> int | None:
    """Return how many positions the model has a vector for; None if it computes any (RoPE)."""
    from transformers import AutoModelForCausalLM

    if not hasattr(config.get_text_config(), NAMES[0]):
        return positions
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
    for module in model.modules():
        is_table = isinstance(module, torch.nn.Embedding)
        tables = [module.weight] if is_table else list(module.buffers(recurse=False))
        for table in tables:
            # OPT's and BART's tables have two rows more; RoBERTa's positions start after padding's
            is_by_position = table.dim() and positions <= len(table) <= positions + 2
            if is_by_position and module is not model.get_input_embeddings():
                padding = module.padding_idx if is_table else None
                return positions if padding is None else positions - padding - 1
    return None


def read_context(config: "PretrainedConfig") -> int | None:
    """Return the number of tokens that the model can read at once; None = any."""
    limits = (_find_positions(config), find_rope_limit(config))
    return min((limit for limit in limits if limit is not None), default=None)


def _find_positions(config: "PretrainedConfig") -> int | None:
    positions = (getattr(config.get_text_config(), name, None) for name in NAMES)
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
