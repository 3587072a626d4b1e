"""Logits of several texts that share a prompt: the prompt runs once for all of them.

Called by the evaluation. TOFU's seven answers to a question cost two thirds of what they cost one by one.

Shapes: K answer tokens of all texts, N tokens of the row, V vocabulary.
"""

import dataclasses
import os
from collections.abc import Sequence

import torch

from tif.data.encoding import Encoded, collate
from tif.scoring.packing import lay_out

SHARED = -1  # number of the text that is a group's common prompt


@dataclasses.dataclass
class AnswerLogits:
    """Logits of the answer tokens of texts, group by group, text by text.

    Attributes:
        logits: (K, V), the model's dtype or float32.
        targets: (K,) long, the tokens that they predict.
        counts: each text's number of answer tokens.
    """

    logits: torch.Tensor
    targets: torch.Tensor
    counts: list[int]


@dataclasses.dataclass(frozen=True)
class _Segment:
    """Consecutive tokens of the row: a group's shared prompt, or what a text adds to it.

    Attributes:
        ids: the tokens.
        position: of the first of them in its text.
        group, text: whose they are; text `SHARED` = all texts of the group.
        start: place of the first of them in the row.
    """

    ids: list[int]
    position: int
    group: int
    text: int
    start: int


class SharedPromptRow:
    """Groups of texts in one row: each group's common prompt, then the rest of each of its texts.

    A token sees its group's prompt and its own text up to itself; positions go on from the prompt.

    Args:
        groups: texts that share a prompt (or one text).
    """

    def __init__(self, groups: Sequence[Sequence[Encoded]]) -> None:
        self.length = 0
        self.segments: list[_Segment] = []
        self.predicting: list[int] = []  # (K,) place in the row that predicts each answer token
        self.targets: list[int] = []
        self.counts: list[int] = []
        for group, texts in enumerate(groups):
            prompt = list(os.path.commonprefix([text.input_ids for text in texts]))
            shared = self._append(prompt, 0, group, SHARED)
            for number, text in enumerate(texts):
                rest = self._append(text.input_ids[len(prompt) :], len(prompt), group, number)
                self._score(text, shared, rest)

    def _append(self, ids: list[int], position: int, group: int, text: int) -> _Segment:
        segment = _Segment(ids, position, group, text, self.length)
        self.segments.append(segment)
        self.length += len(ids)
        return segment

    def _score(self, text: Encoded, shared: _Segment, rest: _Segment) -> None:
        """Note the answer tokens of a text; a text's first token has nothing before it."""
        count = 0
        for position in range(1, len(text.input_ids)):
            if text.uw[position] or text.gw[position]:
                before = position - 1
                segment = shared if before < rest.position else rest
                self.predicting.append(segment.start + before - segment.position)
                self.targets.append(text.input_ids[position])
                count += 1
        self.counts.append(count)

    def inputs(self, device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Return the keyword arguments of a model's `forward`; the mask is (1, 1, N, N), 0 where seen."""
        ids: list[int] = []
        positions: list[int] = []
        owners: list[tuple[int, int]] = []
        for segment in self.segments:
            ids += segment.ids
            positions += range(segment.position, segment.position + len(segment.ids))
            owners += [(segment.group, segment.text)] * len(segment.ids)
        group, text = torch.tensor(owners, device=device).T
        same_group = group[:, None] == group
        same_text = (text == SHARED) | (text[:, None] == text)
        is_seen = (same_group & same_text).tril()
        mask = torch.zeros(is_seen.shape, dtype=dtype, device=device)
        mask.masked_fill_(~is_seen, torch.finfo(dtype).min)
        return {
            "input_ids": torch.tensor([ids], device=device),
            "position_ids": torch.tensor([positions], device=device),
            "attention_mask": mask[None, None],
            "logits_to_keep": torch.tensor(self.predicting, device=device),
        }


def answer_logits(
    model: torch.nn.Module,
    groups: Sequence[Sequence[Encoded]],
    batching: str,
    pad_id: int = 0,
) -> AnswerLogits:
    """Return the logits of the answer tokens of all texts.

    Args:
        model: a Hugging Face causal LM; packed, one that takes `position_ids` and a (1, 1, N, N) attention mask.
        groups: texts that share a prompt (or one text).
        batching: "packed": all groups in one row; "padded": the texts in one rectangular forward.
        pad_id: padding's id, where padded.
    """
    weight = next(model.parameters())
    if batching == "padded":
        return _padded_logits(model, groups, pad_id, weight.device)
    row = SharedPromptRow(groups)
    output = model(**row.inputs(weight.device, weight.dtype), use_cache=False)
    targets = torch.tensor(row.targets, device=weight.device)
    return AnswerLogits(output.logits[0], targets, row.counts)


def _padded_logits(
    model: torch.nn.Module, groups: Sequence[Sequence[Encoded]], pad_id: int, device: torch.device
) -> AnswerLogits:
    texts = [text for group in groups for text in group]
    batch = collate(texts, range(len(texts)), pad_id)
    for name in ("input_ids", "lengths", "uw", "gw"):
        setattr(batch, name, getattr(batch, name).to(device))
    layout = lay_out(model, batch, "padded")
    logits = layout.select_predictions(model(**layout.inputs).logits)
    return AnswerLogits(logits, layout.targets, batch.answer[:, 1:].sum(1).tolist())
