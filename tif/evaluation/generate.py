"""Continue many prompts, greedily or with draws that belong to each prompt.

transformers' own `generate` has one limit of new tokens and one generator for a whole batch, and
runs finished rows to the end of it; here each prompt has its own, and a finished row leaves.
"""

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tif.data.encoding import Encoder
from tif.probes.causal import share_lost
from tif.probes.text_length import read_context
from tif.scoring.forward import keeps_logits, run_model, run_with_cache
from tif.utils.terminal import console
from tif.utils.torch_state import evaluation_mode
from tif.utils.work_sharing import share_work

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: `seeds` own the draws of each prompt, whatever else is in its batch."""

    seeds: Sequence[Sequence[int]]
    temperature: float = 1.0

    def of_prompts(self, numbers: Sequence[int]) -> "Sampling":
        """Return how the tokens of some of the prompts are drawn."""
        return Sampling([self.seeds[number] for number in numbers], self.temperature)


@dataclasses.dataclass(frozen=True)
class Mode:
    """How a model continues prompts.

    Attributes:
        together: in batches padded at the left; else one prompt at a time.
        cache: each new token is read after a cache of the past; else the text is read anew.
        mask: tokens after the prompts come with the mask of the padding, as attention wants it. A
            state (Mamba) needs it for the prompts only, and a prompt alone needs none.
    """

    together: bool = True
    cache: bool = True
    mask: bool = True


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How prompts are continued.

    Attributes:
        tokens_per_batch: of prompts and continuations, padded.
        sampling: None = the most likely token each time.
        mode: as `choose_mode` gives it; None = it is looked for.
    """

    tokens_per_batch: int
    sampling: Sampling | None = None
    mode: Mode | None = None


CLOSE = 0.01  # share of the logits' spread by which two ways to compute them may differ
# The fastest first.
MODES = (Mode(), Mode(mask=False), Mode(False, mask=False), Mode(False, False, False))


def generate(
    model: "PreTrainedModel",
    encoder: Encoder,
    prompts: Sequence[list[int]],
    limits: Sequence[int],
    decoding: Decoding,
) -> list[str]:
    """Return a continuation of each prompt, without the end token; divided over all processes.

    Args:
        model, encoder: a causal LM, whose mode is restored, and its encoder.
        prompts, limits: token ids, and the number of tokens generated at most, for each prompt.
        decoding: how they are continued.
    """
    sampling = decoding.sampling

    def generate_batch(indices: Sequence[int]) -> list[str]:
        batch_sampling = sampling and sampling.of_prompts(indices)
        texts, most = [prompts[i] for i in indices], [limits[i] for i in indices]
        rows = continue_prompts(model, texts, encoder.end_ids, most, batch_sampling, mode)
        return [str(encoder.tokenizer.decode(row, skip_special_tokens=True)) for row in rows]

    if not prompts:
        return []
    prompts = [prompt or [encoder.eos_id] for prompt in prompts]  # a text begins after another
    lengths = [len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True)]
    batches = list(batch_by_length(lengths, decoding.tokens_per_batch))
    mode = decoding.mode or choose_mode(model, prompts)
    with evaluation_mode(model):
        return share_work(batches, generate_batch, "generating answers", model)


def draw_uniforms(seeds: Sequence[Sequence[int]], steps: int) -> torch.Tensor:
    """Return numbers in [0, 1), (R, steps) float64; row r depends on seeds[r] alone."""
    rows = [np.random.default_rng(row_seeds).random(steps) for row_seeds in seeds]
    return torch.tensor(np.array(rows))


def choose_mode(model: "PreTrainedModel", prompts: Sequence[list[int]]) -> Mode:
    """Return the fastest mode of generating whose logits are those of the text read anew.

    Tried on prompts from the shortest to the longest, so that windows are seen. It takes as long as
    some tokens of an answer, so it is looked for once for all sets and epochs.
    """
    by_length = sorted(filter(None, prompts), key=len) or [[0]]
    tried = [by_length[(len(by_length) - 1) * third // 3] for third in range(4)]
    with evaluation_mode(model):
        for mode in MODES:
            if mode.cache and _is_exact(model, tried, mode):
                return mode
    console.print(f"{type(model).__name__} generates without a cache, which is slow")
    return MODES[-1]


def continue_prompts(
    model: "PreTrainedModel",
    prompts: Sequence[list[int]],
    end_ids: Sequence[int],
    limits: Sequence[int],
    sampling: Sampling | None = None,
    mode: Mode = MODES[0],
) -> list[list[int]]:
    """Return the new tokens of each prompt, without the end token.

    The prompts are one batch, padded at the left, or each is one; finished rows leave it.
    """
    answers: list[list[int]] = []
    if not mode.together and len(prompts) > 1:
        for number, prompt in enumerate(prompts):
            draws = sampling and sampling.of_prompts([number])
            answers += continue_prompts(model, [prompt], end_ids, [limits[number]], draws, mode)
        return answers
    reader = _Reader(model, prompts, mode)
    limits_R = torch.tensor(limits, device=model.device)
    ends = torch.tensor(end_ids, device=model.device)
    draws_RS = None
    if sampling is not None:
        draws_RS = draw_uniforms(sampling.seeds, max(limits)).to(model.device)
    rows = torch.arange(len(prompts), device=model.device)  # those still in the batch
    answers = [[] for _ in prompts]
    for step in range(max(limits)):
        logits = reader.next_logits()
        if sampling is None or draws_RS is None:
            tokens = logits.argmax(1)
        else:
            tokens = draw_tokens(logits, draws_RS[rows, step], sampling.temperature)
        is_answer = ~torch.isin(tokens, ends)
        for row, token in zip(rows[is_answer].tolist(), tokens[is_answer].tolist(), strict=True):
            answers[row].append(token)
        unfinished = (is_answer & (limits_R[rows] > step + 1)).nonzero()[:, 0]
        if not len(unfinished):
            break
        if len(unfinished) < len(rows):
            reader.keep(unfinished)
            rows, tokens = rows[unfinished], tokens[unfinished]
        reader.append(tokens)
    return answers


def stream_tokens(
    model: "PreTrainedModel", prompt: list[int], end_ids: Sequence[int], limit: int, mode: Mode
) -> Iterator[int]:
    """Yield the most likely tokens after a prompt as they are chosen, without the end token."""
    reader = _Reader(model, [prompt], mode)
    for _ in range(limit):
        tokens = reader.next_logits().argmax(1)
        if int(tokens) in end_ids:
            return
        yield int(tokens)
        reader.append(tokens)


class _Reader:
    """Texts that a model reads on, (R, T), padded at the left, and its cache of what it has read.

    Attributes:
        ids, mask: (R, T) long, the texts so far; the mask is 0 where they are padded.
        read: how many columns of them the cache holds.
    """

    def __init__(self, model: "PreTrainedModel", texts: Sequence[list[int]], mode: Mode) -> None:
        width = max(map(len, texts))
        rows = [text[:1] * (width - len(text)) + text for text in texts]
        self.model, self.mode, self.cache, self.read = model, mode, None, 0
        self.ids = torch.tensor(rows, device=model.device)
        lengths = torch.tensor([[len(text)] for text in texts], device=model.device)
        self.mask = (torch.arange(width, device=model.device) >= width - lengths).long()

    def next_logits(self) -> torch.Tensor:
        """Return (R, V) float32 logits of the token after the texts; the cache is read on."""
        inputs: dict[str, Any] = {"input_ids": self.ids[:, self.read :]}
        inputs["use_cache"] = self.mode.cache
        if self.mode.mask or (self.mode.together and not self.read):
            inputs["attention_mask"] = self.mask
            positions = (self.mask.cumsum(1) - 1).clamp(min=0)
            inputs["position_ids"] = positions[:, self.read :]
        if keeps_logits(self.model):
            inputs["logits_to_keep"] = 1
        with torch.no_grad():
            output, self.cache = run_with_cache(self.model, self.cache, inputs)
        if self.mode.cache:
            if self.cache is None:
                raise ValueError(f"{type(self.model).__name__} keeps no cache")
            self.read = self.ids.shape[1]
        return output.logits[:, -1].float()

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all other rows."""
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        if self.cache is not None:
            self.cache.reorder_cache(rows)  # takes any indices, also fewer than there are rows

    def append(self, tokens: torch.Tensor) -> None:
        """Add a token, (R,), to each text."""
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)
        self.mask = torch.cat([self.mask, torch.ones_like(tokens)[:, None]], 1)


def _is_exact(model: "PreTrainedModel", prompts: Sequence[list[int]], mode: Mode) -> bool:
    """Return whether a mode gives the logits after each prompt and after a few more tokens.

    After each token the first row leaves its batch, as a finished one does.
    """
    steps = len(prompts)
    errors: list[list[float]] = [[] for _ in prompts]
    try:
        expected = [_read_plainly(model, prompt, steps) for prompt in prompts]
        for batch in [[*range(steps)]] if mode.together else [[number] for number in range(steps)]:
            reader = _Reader(model, [prompts[number] for number in batch], mode)
            for step in range(steps):
                for number, logits in zip(batch, reader.next_logits(), strict=True):
                    errors[number].append(_distance(logits, expected[number][step]))
                if len(batch) > 1:
                    reader.keep(torch.arange(1, len(batch), device=model.device))
                    batch = batch[1:]
                reader.append(reader.ids[:, -1])
        is_close = all(error <= CLOSE for error in itertools.chain(*errors))
        return is_close or _are_rounding(model, prompts, errors)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # every architecture has its own
        return False


def _are_rounding(
    model: "PreTrainedModel", prompts: Sequence[list[int]], errors: list[list[float]]
) -> bool:
    """Return whether distances from each prompt's logits are no more than rounding.

    In half precision, 32 tokens more behind a prompt show how much that is: kernels then read other
    blocks, though not for each prompt, so all tell together. A few logits may be far off where
    rounding chooses an expert.
    """
    context, noises = read_context(model.config) or sys.maxsize, []
    for prompt in prompts:
        longest = min(36, context - len(prompt) + 1)
        alone, followed = (_read_plainly(model, prompt, steps) for steps in (4, longest))
        noises += [_distance(*pair) for pair in zip(alone, followed, strict=False)]
    noise = median([noise for noise in noises if noise] or [0])
    rounding = max(4 * share_lost(model, alone.dtype), 3 * noise)
    return rounding > CLOSE and all(median(row) <= rounding for row in errors)


def _distance(logits_V: torch.Tensor, expected_V: torch.Tensor) -> float:
    """Return how far logits are from others, as a share of their spread; no shift counts."""
    expected = expected_V.float()
    return ((logits_V.float() - expected).std() / expected.std()).item()


def _read_plainly(model: "PreTrainedModel", prompt: list[int], steps: int) -> torch.Tensor:
    """Return (steps, V) logits after a prompt and its repeated last token, read anew."""
    text = [*prompt, *prompt[-1:] * (steps - 1)]
    ids = torch.tensor([text], device=model.device)
    places = torch.arange(len(prompt) - 1, len(text), device=model.device)
    with torch.no_grad():
        output = run_model(model, {"input_ids": ids, "logits_to_keep": places}, use_cache=False)
    return output.logits[0]


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
