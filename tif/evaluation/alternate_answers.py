"""Other answers to the forget questions, drawn from the model before it unlearns (for AltPO).

The answers are stored in a file, so that a killed run continues and nothing is drawn twice; a JSON
line each: {"id": sample id, "number": n, "text": the answer}. Method: arXiv 2409.13474;
molereddy/Alternate-Preference-Optimization generate.py and config/generate.yaml (five answers,
temperature 1, 200 tokens, cut where a question begins).
"""

import dataclasses
import itertools
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tif.config.loss import Alternates
from tif.data.encoding import Encoder
from tif.data.samples import Sample
from tif.evaluation.generate import Decoding, Mode, Sampling, choose_mode, generate
from tif.utils import distributed
from tif.utils.files import append_json_lines, read_json_lines, write_json_lines
from tif.utils.terminal import console

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Answers between two writes. Always the same ones: how an answer is rounded depends on its batch.
ANSWERS_PER_WRITE = 128
NEXT_QUESTION = re.compile("Question:|Q:")  # where it begins, an answer is over


@dataclasses.dataclass(frozen=True)
class AlternateDraws:
    """How other answers are drawn, and where they are stored.

    Attributes:
        settings: section `loss.alternates`.
        seed: owner of all draws.
        tokens_per_batch: of prompts and answers, padded.
        file: named by all that decides about the answers.
    """

    settings: Alternates
    seed: int
    tokens_per_batch: int
    file: Path


def draw_alternates(
    policy: "PreTrainedModel", encoder: Encoder, samples: Sequence[Sample], draws: AlternateDraws
) -> dict[str, tuple[str, ...]]:
    """Return `loss.alternates.count` other answers by sample id, without the blank ones.

    All processes call together. An answer depends on (seed, sample id, its number), not on other
    answers or the number of processes; the global random state is left alone.

    Raises:
        ValueError: If all answers to a question are blank.
    """
    settings, file = draws.settings, draws.file
    wanted = list(itertools.product(samples, range(settings.count)))
    if distributed.is_first_rank():
        file.parent.mkdir(parents=True, exist_ok=True)
    with distributed.locked_on_first_rank(f"{file}.lock", str(file)):
        texts = distributed.run_on_first_rank(lambda: _read(file))
        if not all((sample.id, number) in texts for sample, number in wanted):
            line = f"other answers to {len(samples)} questions, {settings.count} each, to {file}"
            console.print(line, soft_wrap=True)
        mode: Mode | None = None
        for start in range(0, len(wanted), ANSWERS_PER_WRITE):
            chunk = wanted[start : start + ANSWERS_PER_WRITE]
            if not all((sample.id, number) in texts for sample, number in chunk):
                if mode is None:
                    mode = choose_mode(policy, _make_prompts(encoder, wanted, settings))
                new_texts = _draw(policy, encoder, chunk, draws, mode)
                if distributed.is_first_rank():
                    _append(file, {key: new_texts[key] for key in new_texts if key not in texts})
                texts |= new_texts
    alternates = {}
    for sample in samples:
        answers = [texts[sample.id, number] for number in range(settings.count)]
        alternates[sample.id] = tuple(answer for answer in answers if answer)
    blank = [id for id, answers in alternates.items() if not answers]
    if blank:
        raise ValueError(
            f"loss.alternates: the model says nothing to {len(blank)} of {len(samples)} questions "
            f"({', '.join(blank[:3])}); want another loss.alternates.prompt or a larger count"
        )
    return alternates


def _draw(
    policy: "PreTrainedModel",
    encoder: Encoder,
    chunk: Sequence[tuple[Sample, int]],
    draws: AlternateDraws,
    mode: Mode,
) -> dict[tuple[str, int], str]:
    settings = draws.settings
    prompts = _make_prompts(encoder, chunk, settings)
    seeds = [(draws.seed, zlib.crc32(sample.id.encode()), number) for sample, number in chunk]
    limits = [settings.max_new_tokens] * len(chunk)
    sampling = Sampling(seeds, settings.temperature)
    decoding = Decoding(draws.tokens_per_batch, sampling, mode)
    answers = generate(policy, encoder, prompts, limits, decoding)
    texts = {}
    for (sample, number), answer in zip(chunk, answers, strict=True):
        texts[sample.id, number] = NEXT_QUESTION.split(answer)[0].strip()
    return texts


def _make_prompts(
    encoder: Encoder, wanted: Sequence[tuple[Sample, int]], settings: Alternates
) -> list[list[int]]:
    return [encoder.encode_prompt(_fill(settings.prompt, sample)) for sample, _ in wanted]


def _fill(template: str, sample: Sample) -> str:
    fields = {"prompt": sample.prompt, "answer": sample.answer}
    return re.sub(r"\{(prompt|answer)\}", lambda match: fields[match[1]], template)


def _read(file: Path) -> dict[tuple[str, int], str]:
    """Return the stored answers by (sample id, number); what a kill cut short is removed."""
    rows, _ = read_json_lines(file)
    write_json_lines(file, rows)
    return {(row["id"], row["number"]): row["text"] for row in rows}


def _append(file: Path, texts: Mapping[tuple[str, int], str]) -> None:
    rows = [{"id": id, "number": number, "text": texts[id, number]} for id, number in texts]
    append_json_lines(file, rows)
