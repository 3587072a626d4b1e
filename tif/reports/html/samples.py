"""The sample browser's data: what each model said to each question, and how it scored the answer.

Read by samples.js. It is built an evaluation at a time, because all records of a long run do not
fit in memory as Python objects. What is left out to stay below the size limit is said on the page.
"""

import dataclasses
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tif.metrics import tofu
from tif.records.protocols import arithmetic_of
from tif.records.types import AnswerTokens, Evaluation, Record, RecordSet

MAX_BYTES = 8_000_000  # of the browser's data
RETAIN = "retain"  # key of the retain model beside the epochs
ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
SMALLEST, LARGEST, STEPS = 0.01, 60.0, 2047  # nats; below, the scale is nearly linear


@dataclasses.dataclass
class _Sample:
    """A question with its answer, and of each model the packed scores and the generation."""

    record: Record
    scores: dict[str, str] = dataclasses.field(default_factory=dict)
    losses: dict[str, float] = dataclasses.field(default_factory=dict)
    ratios: dict[str, float] = dataclasses.field(default_factory=dict)
    generations: dict[str, str] = dataclasses.field(default_factory=dict)

    def text_size(self) -> int:
        return len(self.record.prompt.encode()) + 4 * len(self.record.answer.encode()) + 80


class SampleBrowser:
    """Collects evaluations and returns the JSON value that the page embeds.

    Args:
        tokens: where the scored tokens of each answer stand, by set and id.
    """

    def __init__(self, tokens: Mapping[str, Mapping[str, AnswerTokens]]) -> None:
        self.tokens = tokens
        self.models: dict[str, str] = {}  # key -> label
        self.sets: dict[str, dict[str, _Sample]] = {}

    def add(self, key: str, label: str, evaluation: Evaluation) -> None:
        """Add a model's records: an epoch's, or the retain model's."""
        self.models[key] = label
        for name, records in evaluation.sets.items():
            samples = self.sets.setdefault(name, {})
            ratios = _truth_ratios(records, evaluation)
            for i, record in enumerate(records.records):
                sample = samples.get(record.id)
                if sample is None:
                    if key == RETAIN:  # the retain model was asked a question that this run was not
                        continue
                    plain = dataclasses.replace(record, stats=None, generated=None)
                    sample = samples[record.id] = _Sample(plain)
                self._add_record(sample, key, name, record)
                if ratios:
                    sample.ratios[key] = ratios[i]

    def _add_record(self, sample: _Sample, key: str, set_name: str, record: Record) -> None:
        sample.losses[key] = record.loss
        if record.generated is not None:
            sample.generations[key] = record.generated
        tokens = self.tokens.get(set_name, {}).get(record.id)
        if record.stats and tokens and len(record.stats.logprob) == len(tokens.ends):
            sample.scores[key] = pack(record.stats.logprob, record.stats.top)

    def as_json(self, important: Sequence[str]) -> dict[str, Any]:
        """Return the browser's data, thinned to MAX_BYTES.

        First the generations between the `important` models go, then whole epochs between them,
        then the last questions of each set.
        """
        keys, spoken, notes = list(self.models), list(self.models), list[str]()
        important = [key for key in (*important, RETAIN) if key in self.models]
        if self._size(keys, spoken) > MAX_BYTES:
            spoken = important
            notes.append("generations of the epochs in between are left out")
        stride = 1
        while self._size(keys, spoken) > MAX_BYTES and stride < len(self.models):
            stride *= 2
            thinned = list(self.models)[::stride]
            keys = [key for key in self.models if key in thinned or key in important]
        if stride > 1:
            notes.append(f"every {stride}th epoch is shown")
        share = min(1.0, MAX_BYTES / max(self._size(keys, spoken), 1))
        if share < 1:
            notes.append(f"the first {share:.0%} of each set's questions are shown")
        sets = []
        for name, samples in self.sets.items():
            shown, tokens = list(samples.values()), self.tokens.get(name, {})
            shown = shown[: max(1, int(len(shown) * share))]
            parts = [_sample_as_json(s, tokens.get(s.record.id), keys, spoken) for s in shown]
            sets.append({"name": name, "samples": parts})
        models = [{"key": key, "label": self.models[key]} for key in keys]
        return {"models": models, "sets": sets, "notes": notes}

    def _size(self, keys: Sequence[str], spoken: Sequence[str]) -> int:
        """Return about how many bytes the JSON of these models has."""
        total = 0
        for samples in self.sets.values():
            for sample in samples.values():
                total += sample.text_size() + 14 * len(keys)
                total += sum(len(sample.scores.get(key, "")) for key in keys)
                texts = {sample.generations.get(key, "") for key in spoken}
                total += sum(len(text.encode()) + 4 for text in texts)
        return total


def _sample_as_json(
    sample: _Sample, tokens: AnswerTokens | None, keys: Sequence[str], spoken: Sequence[str]
) -> dict[str, Any]:
    """Return a question as samples.js reads it; lists go by model, in the order of `keys`.

    id, q, a: the record's id, question and answer; l: losses; r: truth ratios; e: lengths of the
    answer's tokens; p: their packed scores; u: numbers of the unwanted tokens; w: places of the
    unwanted words; texts, g: see `_generations_as_json`.
    """
    record = sample.record
    fields: dict[str, Any] = {"id": record.id, "q": record.prompt, "a": record.answer}
    fields["l"] = [_round(sample.losses.get(key)) for key in keys]
    if sample.ratios:
        fields["r"] = [_round(sample.ratios.get(key)) for key in keys]
    if tokens and sample.scores:
        ends = _utf16(record.answer, tokens.ends)
        fields["e"] = [end - start for start, end in zip((0, *ends), ends, strict=False)]
        fields["p"] = [sample.scores.get(key) for key in keys]
        if tokens.uw is not None:
            fields["u"] = [i for i, is_unwanted in enumerate(tokens.uw) if is_unwanted]
    if tokens and tokens.unwanted:
        fields["w"] = [_utf16(record.answer, place) for place in tokens.unwanted]
    return fields | _generations_as_json(sample.generations, keys, spoken)


def _generations_as_json(
    generations: Mapping[str, str], keys: Sequence[str], spoken: Sequence[str]
) -> dict[str, Any]:
    """Return texts: different generations of the models `spoken`; g: the number of each model's.

    Many models say the same, so each text is stored once. Nothing where none of them spoke.
    """
    numbers: dict[str, int] = {}
    number_of_model: dict[str, int] = {}
    for key in spoken:
        if key in generations:
            text = generations[key]
            number_of_model[key] = numbers.setdefault(text, len(numbers))
    if not numbers:
        return {}
    return {"texts": list(numbers), "g": [number_of_model.get(key) for key in keys]}


def _utf16(text: str, places: Sequence[int]) -> list[int]:
    """Return places in characters as JavaScript counts them."""
    if text.isascii():
        return list(places)
    return [len(text[:place].encode("utf-16-le")) // 2 for place in places]


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _truth_ratios(records: RecordSet, evaluation: Evaluation) -> list[float]:
    """Return the truth ratios w / c of a set; none where its records have no wrong answers."""
    if not all(record.perturbed_losses for record in records.records) or not records.records:
        return []
    ratios = tofu.truth_ratios(records, arithmetic_of(evaluation.protocol))
    return [float(ratio) for ratio in ratios]


def pack(logprobs: Sequence[float], top: Sequence[bool]) -> str:
    """Return two characters for each token: its log-probability, and whether it is the argmax.

    The 11 bits of the log-probability, which keep it to 0.4 %, count steps of
    log(1 + nats / SMALLEST); samples.js unpacks them. A report with 4,000 answers at 20 epochs
    stays below 10 MB this way.
    """
    nats = np.clip(-np.asarray(logprobs, dtype=np.float64), 0, LARGEST)
    scaled = np.log1p(nats / SMALLEST) / np.log1p(LARGEST / SMALLEST)
    codes = np.rint(scaled * STEPS).astype(np.int64) * 2 + np.asarray(top, dtype=np.int64)
    pairs = np.stack([codes >> 6, codes & 63], axis=1)
    return "".join(ALPHABET[place] for place in pairs.ravel())
