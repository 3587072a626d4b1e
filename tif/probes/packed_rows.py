"""Decide whether batches go through a model packed or padded, by a probe of the model in its place.

Shapes: S scored tokens.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import torch

from tif.config.errors import ConfigError, one_line
from tif.data.encoding import Encoded, collate
from tif.probes.causal import (
    FORWARD_ERRORS,
    ROUNDING,
    SCORED,
    check_causal,
    find_device,
    read_logits,
    share_lost,
)
from tif.scoring.lm_head import scores_of_logits
from tif.scoring.packing import PACKED_TOKENS, packed_tokens
from tif.scoring.shared_prompts import answer_logits
from tif.scoring.token_scores import score_tokens
from tif.utils.terminal import console
from tif.utils.torch_state import evaluation_mode

SHORT = 24  # tokens of the probed text, where no window is shorter than the texts
NEIGHBOUR = 8  # tokens before it, which differ from row to row
NOISE = 3  # how much further from a forward of its own a packed text may be than a padded one


def choose_batching(
    wanted: str, model: torch.nn.Module, texts: Sequence[Sequence[int]], key: str = "data.batching"
) -> str:
    """Return what `data.batching` means for this model: "packed" or "padded".

    "auto" is "packed" where packing leaves the scores as they are. Where it does not (samples see
    each other, or a state runs through the row as Mamba's does), a line says so.

    Args:
        wanted: "auto", "packed" or "padded".
        model: a Hugging Face causal LM, on its device and under its precision.
        texts: tokens of what it will read; the longest is looked at.
        key: name of the key that holds `wanted`.

    Raises:
        ConfigError: If the model reads in both directions or does not run, or "packed" is wanted
            and would change its scores.
    """
    longest = max(texts, key=len)
    check_causal(model, longest)
    if wanted == "padded":
        return wanted
    fault = find_packing_fault(model, longest)
    if wanted == "packed":
        refuse_packing(key, fault)
    if fault is None:
        return "packed"
    console.print(f"rows are padded: {fault}", markup=False, soft_wrap=True)
    return "padded"


def refuse_packing(key: str, fault: str | None) -> None:
    """Raise ConfigError, which names the key, if packed rows are wanted and have a fault."""
    if fault is not None:
        raise ConfigError(f"{key}: packed, but {fault}; want auto or padded")


def find_packing_fault(
    model: torch.nn.Module, ids: Sequence[int], least: float = 0.0
) -> str | None:
    """Return what is wrong with the scores of a text in packed rows; None if nothing is.

    The text stands in a row after another one, then after one with which it shares its prompt. Two
    things are wanted. Its scores are those of a forward of its own, to the rounding that a padded
    rectangle has too. And they do not move with the tokens of its neighbours, which needs no
    tolerance: so a small leak shows in any precision.

    Args:
        model: as for `choose_batching`.
        ids: tokens of the longest text that the model will read.
        least: differences up to here are no fault, in nats a token.
    """
    name = type(model).__name__
    rows = _make_rows(model, ids)
    with evaluation_mode(model):
        alone, coarsest = _score_alone(model, rows[0][-1])
        try:
            error = _measure_error(model, rows, alone, coarsest)
        except torch.OutOfMemoryError:
            raise
        except FORWARD_ERRORS as error:  # as without position_ids
            return f"{name} does not run on packed rows ({one_line(error, 100)})"
    if error is None or error <= least:
        return None
    return f"{name} gives other scores in packed rows (by {error:.2g} nats a token)"


def _measure_error(
    model: torch.nn.Module, rows: Sequence[list[Encoded]], alone: torch.Tensor, coarsest: float
) -> float | None:
    """Return by how much the scores of the rows' last text are wrong; None if they are right."""
    size = alone[0].square().mean().sqrt().item()
    rounding = coarsest * size
    for way in ("packed", "shared"):
        first, second = (_score_last(model, row, way) for row in rows)
        error, leak = _distance(first, alone), _distance(first, second)
        if error <= rounding and leak == 0:
            continue
        # Rounding depends on shapes, on experts' other tokens, on outliers: padded rows show how.
        padded, other = (_score_last(model, row, "padded") for row in rows)
        most_error = max(rounding, NOISE * _distance(padded, alone))
        most_leak = max(ROUNDING * size, NOISE * _distance(padded, other))
        if not (error <= most_error and leak <= most_leak):  # also if they are NaN
            return max(error, leak)
    return None


def _make_rows(model: torch.nn.Module, ids: Sequence[int]) -> tuple[list[Encoded], list[Encoded]]:
    """Return two rows of three texts that differ in all but the last one and its prompt."""
    length, neighbour = SHORT, NEIGHBOUR
    row_tokens = packed_tokens(find_device(model))
    config: Any = getattr(model, "config", None)
    values = {} if config is None else config.get_text_config().to_dict()
    for name, tokens in values.items():
        if type(tokens) is not int or not ("window" in name or "chunk" in name):
            continue
        if tokens < len(ids):  # the scored tokens do not see the first ones
            length = max(length, tokens + SCORED + 1)
        elif "chunk" in name and tokens < row_tokens:  # a chunk of the row ends inside the text
            neighbour = max(neighbour, tokens - length // 2)
    for buffer in model.buffers():  # the mask of a row (GPT-Neo's) ends inside the text
        is_square = buffer.dim() > 1 and buffer.shape[-1] == buffer.shape[-2]
        if is_square and buffer.shape[-1] < max(PACKED_TOKENS.values()):
            neighbour = max(neighbour, buffer.shape[-1])
    length = max(min(length, len(ids)), NEIGHBOUR)
    scored = min(SCORED, length // 2)
    tokens_of_all = list(itertools.islice(itertools.cycle(ids), length + neighbour + NEIGHBOUR))
    text = tokens_of_all[:length]
    rows = []
    for start in (0, NEIGHBOUR):
        before = tokens_of_all[start : start + neighbour]
        sharing = text[:-scored] + before[:NEIGHBOUR]
        rows.append([_encode("a", before), _encode("b", sharing), _encode("b", text, scored)])
    return rows[0], rows[1]


def _encode(id: str, ids: list[int], scored: int = 0) -> Encoded:
    is_scored = [0 < t <= scored or t >= len(ids) - scored for t in range(len(ids))]
    return Encoded(id, ids, [False] * len(ids), is_scored)


def _score_alone(model: torch.nn.Module, text: Encoded) -> tuple[torch.Tensor, float]:
    """Return a text's scores by the model's own forward, (2, S), and its rounding as a share."""
    device = find_device(model)
    ids = torch.tensor([text.input_ids], device=device)
    logits = read_logits(model, ids)[:-1][text.gw[1:]]
    scores = torch.stack(scores_of_logits(logits, ids[0, text.gw])[:2])
    return scores, share_lost(model, logits.dtype)


def _score_last(model: torch.nn.Module, row: list[Encoded], way: str) -> torch.Tensor:
    """Return the scores of a row's last text, (2, S): logits and log-probabilities."""
    if way == "shared":
        answers = answer_logits(model, [row[:1], row[1:]], "packed")
        return torch.stack(scores_of_logits(answers.logits, answers.targets)[:2])
    before, _, text = row
    if way == "padded":  # so that the last text has padding
        before = dataclasses.replace(before, input_ids=text.input_ids + before.input_ids)
    batch = collate([before, text], range(2), 0).to(find_device(model))
    scores = score_tokens(model, batch, way)
    return torch.stack([scores.logit, scores.logprob])[:, -1][:, batch.gw[-1, 1:]]


def _distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the mean difference at that end of the text where it is larger."""
    halves = (first - second).abs().mean(0).tensor_split(2)
    return max(half.mean().nan_to_num(torch.inf).item() for half in halves if len(half))
