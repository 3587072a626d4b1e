"""Other answers to the forget questions, drawn from the model that is to be unlearned: what AltPO prefers.

Kept in a file, a JSON line each, so that a killed run goes on and nothing is drawn twice:

    {"id": sample id, "number": n, "text": the answer}
"""

import contextlib
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tif.config.loss import Alternates
from tif.data.encoding import Encoder
from tif.data.samples import Sample
from tif.evaluation.generate import generate
from tif.utils import distributed
from tif.utils.files import locked, os_errors_naming
from tif.utils.terminal import console

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 128  # answers between two writes, always the same ones: a batch's company decides about rounding
ENDS = ("Question:", "Q:")  # where the next question begins, the answer is over

Key = tuple[str, int]


def alternates(
    policy: "PreTrainedModel",
    encoder: Encoder,
    samples: Sequence[Sample],
    cfg: Alternates,
    seed: int,
    tokens_per_batch: int,
    file: Path,
) -> dict[str, tuple[str, ...]]:
    """`cfg.count` other answers to each question, from the file where they are there. All processes call together.

    An answer depends on (seed, sample id, its number): not on other answers, nor on the number of processes, and the
    global random state is left alone. Method: arXiv 2409.13474; molereddy/Alternate-Preference-Optimization generate.py
    and config/generate.yaml (five answers, temperature 1, 200 tokens, cut where a question begins).

    Args:
        policy: as it is before training.
        encoder, samples: how and what it is asked.
        seed: of all draws.
        tokens_per_batch: of prompts and answers, padded, in one batch.
        file: named by all that decides about the answers; its folder is made where missing.

    Returns:
        By sample id, those that are no blanks.

    Raises:
        ValueError: If all answers to a question are blank.
    """
    wanted = [(s, n) for s in samples for n in range(cfg.count)]
    with contextlib.ExitStack() as stack:

        def begin() -> dict[Key, str]:
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(f"{file}.lock", str(file)))
            return _read(file)

        texts = distributed.run_on_first_rank(begin)
        if any((s.id, n) not in texts for s, n in wanted):
            console.print(f"other answers to {len(samples)} questions, {cfg.count} each, to {file}", markup=False,
                          soft_wrap=True)  # fmt: skip
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            if all((s.id, n) in texts for s, n in chunk):
                continue
            prompts = [encoder.encode_prompt(_asked(cfg, s)) for s, _ in chunk]
            seeds = [(seed, zlib.crc32(s.id.encode()), n) for s, n in chunk]
            made = generate(policy, encoder, prompts, cfg.max_new_tokens, tokens_per_batch, seeds, cfg.temperature)
            new = {(s.id, n): _cut(text) for (s, n), text in zip(chunk, made, strict=True)}
            if distributed.is_first_rank():
                _append(file, {key: text for key, text in new.items() if key not in texts})
            texts |= new
    found = {s.id: tuple(t for n in range(cfg.count) if (t := texts[s.id, n])) for s in samples}
    if blank := [name for name, own in found.items() if not own]:
        raise ValueError(f"loss.alternates: the model says nothing to {len(blank)} of {len(samples)} questions ("
                         f"{', '.join(blank[:3])}); want another loss.alternates.prompt or a larger count")  # fmt: skip
    return found


def _asked(cfg: Alternates, sample: Sample) -> str:
    return re.sub(r"\{(prompt|answer)\}", lambda found: str(getattr(sample, found[1])), cfg.prompt)


def _cut(text: str) -> str:
    for end in ENDS:
        text = text.split(end)[0]
    return text.strip()


def _read(file: Path) -> dict[Key, str]:
    """What is there; a line that a kill cut short is no answer."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            found[row["id"], row["number"]] = str(row["text"])
    return found


def _append(file: Path, texts: dict[Key, str]) -> None:
    lines = [json.dumps({"id": name, "number": n, "text": text}) for (name, n), text in texts.items()]
    with os_errors_naming(file), file.open("a", encoding="utf-8") as out:
        out.write("\n".join(["", *lines, ""]))  # begins a line of its own, whatever a kill left of the last one
