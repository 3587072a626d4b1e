"""Continue many prompts, greedily or with draws that belong to each prompt.

Called by evaluation/evaluate.py, evaluation/alternate_answers.py and tif/bench. transformers' own
`generate` has one limit of new tokens and one generator for a whole batch, and runs finished rows
to the end of the batch; here each prompt has its own limit and draws, and a finished row leaves.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from tif.data.encoding import Encoder
from tif.utils.torch_state import evaluation_mode
from tif.utils.work_sharing import share_work

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: `seeds` own the draws of each prompt, whatever else is in its batch."""

    seeds: Sequence[Sequence[int]]
    temperature: float = 1.0


def generate(
    model: "PreTrainedModel",
    encoder: Encoder,
    prompts: Sequence[list[int]],
    limits: Sequence[int],
    tokens_per_batch: int,
    sampling: Sampling | None = None,
) -> list[str]:
    """Return a continuation of each prompt, without the end token; divided over all processes.

    Args:
        model, encoder: a causal LM, whose mode is restored, and its encoder.
        prompts, limits: token ids, and the number of tokens generated at most, for each prompt.
        tokens_per_batch: of prompts and continuations, padded.
        sampling: None = the most likely token each time.
    """

    def generate_batch(indices: Sequence[int]) -> list[str]:
        batch_sampling = None
        if sampling is not None:
            seeds = [sampling.seeds[i] for i in indices]
            batch_sampling = Sampling(seeds, sampling.temperature)
        batch_prompts = [prompts[i] for i in indices]
        batch_limits = [limits[i] for i in indices]
        rows = continue_prompts(model, batch_prompts, encoder.eos_id, batch_limits, batch_sampling)
        return [str(encoder.tokenizer.decode(row, skip_special_tokens=True)) for row in rows]

    lengths = [len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True)]
    batches = list(batch_by_length(lengths, tokens_per_batch))
    with evaluation_mode(model):
        return share_work(batches, generate_batch, "generating answers", model)


def draw_uniforms(seeds: Sequence[Sequence[int]], steps: int) -> torch.Tensor:
    """Return numbers in [0, 1), (R, steps) float64; row r depends on seeds[r] alone."""
    rows = [np.random.default_rng(row_seeds).random(steps) for row_seeds in seeds]
    return torch.tensor(np.array(rows))


def continue_prompts(
    model: "PreTrainedModel",
    prompts: Sequence[list[int]],
    eos_id: int,
    limits: Sequence[int],
    sampling: Sampling | None = None,
) -> list[list[int]]:
    """Return the new tokens of each prompt, without the end token.

    The prompts are one batch, padded at the left, with a key-value cache; finished rows leave it.
    """
    from transformers import DynamicCache

    device, width = model.device, max(map(len, prompts))
    ids = torch.tensor([[eos_id] * (width - len(row)) + row for row in prompts], device=device)
    lengths = torch.tensor([[len(row)] for row in prompts], device=device)
    mask = (torch.arange(width, device=device) >= width - lengths).long()
    limits_R = torch.tensor(limits, device=device)
    cache = getattr(model, "new_cache", lambda: DynamicCache(config=model.config))()
    draws_RS = None if sampling is None else draw_uniforms(sampling.seeds, max(limits)).to(device)
    rows = torch.arange(len(prompts), device=device)  # those still in the batch
    answers: list[list[int]] = [[] for _ in prompts]
    for step in range(max(limits)):
        with torch.no_grad():
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits = output.logits[:, -1].float()
        if sampling is None or draws_RS is None:
            tokens = logits.argmax(1)
        else:
            tokens = draw_tokens(logits, draws_RS[rows, step], sampling.temperature)
        is_answer = tokens != eos_id
        for row, token in zip(rows[is_answer].tolist(), tokens[is_answer].tolist(), strict=True):
            answers[row].append(token)
        unfinished = (is_answer & (limits_R[rows] > step + 1)).nonzero()[:, 0]
        if not len(unfinished):
            break
        if len(unfinished) < len(rows):
            cache.batch_select_indices(unfinished)
            rows, mask, tokens = rows[unfinished], mask[unfinished], tokens[unfinished]
        ids, mask = tokens[:, None], torch.cat([mask, torch.ones_like(tokens)[:, None]], 1)
    return answers


def draw_tokens(logits_RV: torch.Tensor, draws_R: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return for each row the token at which the summed probabilities pass its draw: (R,)."""
    cumulative_RV = (logits_RV.double() / temperature).softmax(1).cumsum(1)
    draws_R1 = draws_R[:, None] * cumulative_RV[:, -1:]  # they sum to 1 up to rounding only
    tokens_R = torch.searchsorted(cumulative_RV, draws_R1, right=True)[:, 0]
    return tokens_R.clamp(max=logits_RV.shape[1] - 1)


def batch_by_length(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Yield the indices of texts in batches of similar lengths, the longest first.

    A padded batch has at most `tokens_per_batch` tokens, or a single text. The longest come first,
    so that a batch that does not fit the memory shows at once.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens_per_batch:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
