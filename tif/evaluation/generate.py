"""Continuations of many prompts: the likeliest tokens, or drawn ones."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from tif.data.encoding import Encoder
from tif.utils.torch_state import evaluation_mode
from tif.utils.work_sharing import share_work

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def generate(
    model: "PreTrainedModel",
    encoder: Encoder,
    prompts: Sequence[list[int]],
    max_new_tokens: int | Sequence[int],
    tokens_per_batch: int,
    seeds: Sequence[Sequence[int]] | None = None,
    temperature: float = 1.0,
) -> list[str]:
    """Continuations without the end token, greedy unless there are seeds; shared out to all processes.

    Args:
        model: a causal LM; its mode is restored.
        encoder: knows the end token and turns ids into text.
        prompts: token ids, see Encoder.encode_prompt.
        max_new_tokens: at most so many tokens, for all prompts or for each.
        tokens_per_batch: of prompts and what follows, padded, in one batch.
        seeds: for each prompt, numbers that own its draws, whatever else is in its batch; None = greedy.
        temperature: of the draws; the logits are divided by it.
    """
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)

    def work(index: Sequence[int]) -> list[str]:
        choose = _likeliest if seeds is None else _drawn([(seeds[i], limits[i]) for i in index], temperature)
        rows = _continued(model, [prompts[i] for i in index], encoder.eos_id, [limits[i] for i in index], choose)
        return [str(encoder.tokenizer.decode(row, skip_special_tokens=True)) for row in rows]

    lengths = [len(p) + limit for p, limit in zip(prompts, limits, strict=True)]
    with evaluation_mode(model):
        return share_work(list(by_length(lengths, tokens_per_batch)), work, "generating answers", model)


Choose = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]  # (R, V) logits, (R,) rows, step -> (R,) tokens


def _likeliest(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
    return logits.argmax(1)


def _drawn(owners: Sequence[tuple[Sequence[int], int]], temperature: float) -> Choose:
    """One draw a step for each row, from (seeds, steps): the token at which the summed probabilities pass it."""
    most = max(steps for _, steps in owners)
    draws = torch.tensor(np.array([np.random.default_rng(seeds).random(most) for seeds, _ in owners]))

    def choose(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        passed = (logits.double() / temperature).softmax(1).cumsum(1)
        at = draws.to(logits.device)[rows, step - 1][:, None] * passed[:, -1:]  # the sum is 1 up to rounding
        return torch.searchsorted(passed, at, right=True)[:, 0].clamp(max=logits.shape[1] - 1)

    return choose


def _continued(
    model: "PreTrainedModel",
    prompts: list[list[int]],
    eos_id: int,
    limits: Sequence[int],
    choose: Choose = _likeliest,
) -> list[list[int]]:
    """Decoding of left-padded prompts with a key-value cache; finished rows leave the batch."""
    from transformers import DynamicCache

    width, device = max(map(len, prompts)), model.device
    ids = torch.tensor([[eos_id] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    left = torch.tensor(limits, device=device)
    cache = getattr(model, "new_cache", lambda: DynamicCache(config=model.config))()
    rows = torch.arange(len(prompts), device=device)
    answers: list[list[int]] = [[] for _ in prompts]
    with torch.no_grad():
        for step in range(1, max(limits) + 1):
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            chosen = choose(output.logits[:, -1].float(), rows, step)
            said = chosen != eos_id
            for row, token in zip(rows[said].tolist(), chosen[said].tolist(), strict=True):
                answers[row].append(token)
            going = (said & (left[rows] > step)).nonzero()[:, 0]
            if not len(going):
                break
            if len(going) < len(rows):
                cache.batch_select_indices(going)
                rows, mask, chosen = rows[going], mask[going], chosen[going]
            ids, mask = chosen[:, None], torch.cat([mask, torch.ones_like(chosen)[:, None]], 1)
    return answers


def by_length(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices in batches of at most `tokens_per_batch` (one text at least), similar lengths together, longest first.

    Longest first: a batch that does not fit the memory shows at once.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens_per_batch:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
