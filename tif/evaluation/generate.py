"""Continue many prompts, greedily or with draws that belong to each prompt.

Called by evaluation/evaluate.py, evaluation/alternate_answers.py and tif/bench. transformers' own
`generate` has one limit of new tokens and one generator for a whole batch, and runs finished rows
to the end of the batch; here each prompt has its own limit and draws, and a finished row leaves.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

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
        rows = continue_batch(model, batch_prompts, encoder.eos_id, batch_limits, batch_sampling)
        return [str(encoder.tokenizer.decode(row, skip_special_tokens=True)) for row in rows]

    lengths = [len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True)]
    batches = list(batch_by_length(lengths, tokens_per_batch))
    with evaluation_mode(model):
        continue_batch = continue_prompts if is_cache_exact(model) else continue_without_cache
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
    device, width = model.device, max(map(len, prompts))
    ids = torch.tensor([[eos_id] * (width - len(row)) + row for row in prompts], device=device)
    lengths = torch.tensor([[len(row)] for row in prompts], device=device)
    mask = (torch.arange(width, device=device) >= width - lengths).long()
    limits_R = torch.tensor(limits, device=device)
    cache = _new_cache(model)
    draws_RS = None if sampling is None else draw_uniforms(sampling.seeds, max(limits)).to(device)
    rows = torch.arange(len(prompts), device=device)  # those still in the batch
    answers: list[list[int]] = [[] for _ in prompts]
    for step in range(max(limits)):
        logits = _next_logits(model, ids, mask, cache)
        tokens = _choose_tokens(logits, draws_RS, rows, step, sampling)
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


def continue_without_cache(
    model: "PreTrainedModel",
    prompts: Sequence[list[int]],
    eos_id: int,
    limits: Sequence[int],
    sampling: Sampling | None = None,
) -> list[list[int]]:
    """Return what `continue_prompts` returns, one prompt at a time, its text read anew each step.

    Slow and right for any model: state-space and hybrid models (Mamba, Jamba, LFM2) keep a state
    under another name, or one whose rows cannot leave the batch.
    """
    answers = []
    for number, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        ids = torch.tensor([prompt], device=model.device)
        row = torch.zeros(1, dtype=torch.long, device=model.device)
        draws_RS = None
        if sampling is not None:
            draws_RS = draw_uniforms([sampling.seeds[number]], limit).to(model.device)
        answer: list[int] = []
        for step in range(limit):
            with torch.no_grad():
                logits = model(input_ids=ids, use_cache=False).logits[:, -1].float()
            tokens = _choose_tokens(logits, draws_RS, row, step, sampling)
            if tokens[0] == eos_id:
                break
            answer.append(int(tokens[0]))
            ids = torch.cat([ids, tokens[:, None]], 1)
        answers.append(answer)
    return answers


def is_cache_exact(model: "PreTrainedModel") -> bool:
    """Return whether a model with a key-value cache gives the logits that it gives without one.

    Tried on two short prompts of different lengths, the first of which leaves the batch.
    """
    device = model.device
    ids = torch.tensor([[1, 2, 3, 4], [0, 5, 6, 7]], device=device)
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]], device=device)
    new_token, second = torch.tensor([[8]], device=device), torch.tensor([1], device=device)
    try:
        cache = _new_cache(model)
        _next_logits(model, ids, mask, cache)
        cache.batch_select_indices(second)
        longer = torch.tensor([[0, 1, 1, 1, 1]], device=device)
        actual = _next_logits(model, new_token, longer, cache)
        with torch.no_grad():
            text = torch.tensor([[5, 6, 7, 8]], device=device)
            expected = model(input_ids=text, use_cache=False).logits[:, -1].float()
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    close = 0.01 if next(model.parameters()).dtype == torch.float32 else 0.1
    return bool((actual - expected).abs().max() <= close * (1 + expected.abs().max()))


def _new_cache(model: "PreTrainedModel") -> Any:
    from transformers import DynamicCache

    whp_model: Any = model
    if hasattr(model, "new_cache"):
        return whp_model.new_cache()
    return DynamicCache(config=model.config)


def _next_logits(
    model: "PreTrainedModel", ids: torch.Tensor, mask: torch.Tensor, cache: Any
) -> torch.Tensor:
    """Return (R, V) float32 logits of the token after `ids`, whose past is in the cache."""
    with torch.no_grad():
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    return output.logits[:, -1].float()


def _choose_tokens(
    logits: torch.Tensor,
    draws_RS: torch.Tensor | None,
    rows: torch.Tensor,
    step: int,
    sampling: Sampling | None,
) -> torch.Tensor:
    if sampling is None or draws_RS is None:
        return logits.argmax(1)
    return draw_tokens(logits, draws_RS[rows, step], sampling.temperature)


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
