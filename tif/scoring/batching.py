"""Decide whether batches go through a model packed or padded.

Called before training, evaluation and identification with a causal LM.
"""

import torch

from tif.data.encoding import Batch, Encoded
from tif.scoring.lm_head import scores_of_logits
from tif.scoring.shared_prompts import answer_logits
from tif.scoring.token_scores import score_tokens
from tif.utils.torch_state import evaluation_mode


def choose_batching(requested: str, model: torch.nn.Module) -> str:
    """Return what `data.batching` means for this model.

    "auto" is "packed" where packing leaves the scores as they are. Models without `position_ids`,
    or whose state runs through the row (Mamba), fail the probe and are padded.

    Args:
        requested: "auto", "packed" or "padded".
        model: a Hugging Face causal LM.
    """
    if requested != "auto":
        return requested
    return "packed" if _is_packing_exact(model) else "padded"


def _is_packing_exact(model: torch.nn.Module) -> bool:
    """Return whether two short texts have the same scores packed, sharing a prompt, and padded."""
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    ids = (torch.arange(10, device=device).view(2, 5) * 7 + 3) % vocabulary
    is_answer = torch.ones(2, 5, dtype=torch.bool, device=device)
    lengths = torch.full((2,), 5, device=device)
    batch = Batch(("a", "b"), torch.arange(2), ids, lengths, is_answer, ~is_answer)
    text = _all_answer(ids[0].tolist())
    same_prompt = _all_answer(ids[0, :2].tolist() + ids[1, 2:].tolist())
    try:
        with evaluation_mode(model):
            packed = score_tokens(model, batch, "packed").logprob
            padded = score_tokens(model, batch, "padded").logprob
            scored = answer_logits(model, [[text], [text, same_prompt]], "packed")
    except (TypeError, ValueError, RuntimeError):  # forward takes no position_ids, or no mask
        return False
    logprobs = scores_of_logits(scored.logits, scored.targets)[1]
    alone, sharing, _ = logprobs.split(scored.counts)
    close = 1e-3 if next(model.parameters()).dtype == torch.float32 else 0.1
    return torch.allclose(packed, padded, atol=close) and torch.allclose(alone, sharing, atol=close)


def _all_answer(ids: list[int]) -> Encoded:
    return Encoded("a", ids, [True] * len(ids), [False] * len(ids))
