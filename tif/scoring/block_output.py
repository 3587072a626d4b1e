"""Read the output of decoder blocks while a model runs.

Called by `tif.scoring.token_scores` for RMU, before a run by `tif.training.checks`, and by the
attack `depth`, which also replaces outputs.

Forward hooks do it, in these two files only, because no call does so in every family: transformers'
`hidden_states` end with the state after the final norm in place of the last block's output (so in
Llama), and begin without the embeddings in Mamba and RWKV. They are gone after the forward.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from tif.config.errors import ConfigError

# Families whose blocks run several times, or on several states of a token.
WITHOUT_ONE_STATE = (
    "blt", "deepseek_v4", "dory", "gemma3n", "gemma3n_text", "git", "hrm_text", "hy_v4",
    "prophetnet",
)  # fmt: skip


@contextlib.contextmanager
def recorded_block(model: Any, layer: int) -> Iterator[list[torch.Tensor]]:
    """Collect the outputs of a block, counted from 0, in the forwards inside the context."""
    outputs: list[torch.Tensor] = []

    def record(_block: torch.nn.Module, _inputs: Any, output: Any) -> None:
        outputs.append(output if isinstance(output, torch.Tensor) else output[0])

    handle = list_blocks(model)[layer].register_forward_hook(record)
    try:
        yield outputs
    finally:
        handle.remove()


def count_blocks(model: Any) -> int:
    """Return how many decoder blocks with one output for each token a model has; 0 = none."""
    return 0 if model.config.model_type in WITHOUT_ONE_STATE else len(list_blocks(model))


def pick_output(outputs: list[torch.Tensor], shape: torch.Size) -> torch.Tensor:
    """Return the (B, T, D) output of a block in a forward of (B, T) tokens.

    Raises:
        ConfigError: If the block ran more than once, or not on one state for each token.
    """
    if len(outputs) != 1 or outputs[0].dim() != 3 or outputs[0].shape[:2] != shape:
        shapes = [list(output.shape) for output in outputs]
        raise ConfigError(f"loss.rmu.layer: a block gives {shapes} for {list(shape)} tokens, not "
                          "one state for each; want another loss.forget")
    return outputs[0]


def list_blocks(model: Any) -> torch.nn.ModuleList | tuple[()]:
    """Return the decoder's blocks, which transformers marks for checkpointing; () without any."""
    from transformers import PreTrainedModel
    from transformers.modeling_layers import GradientCheckpointingLayer

    decoder = model.get_decoder()
    root: Any = decoder if isinstance(decoder, PreTrainedModel) else model
    for module in root.modules():
        is_list = isinstance(module, torch.nn.ModuleList) and len(module) > 0
        if is_list and all(isinstance(block, GradientCheckpointingLayer) for block in module):
            return module
    return ()
