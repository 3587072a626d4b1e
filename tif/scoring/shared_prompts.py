"""Compute the logits of texts that share a prompt; the prompt runs once for all of them.

Called by the evaluation. TOFU's seven answers to a question cost two thirds of what they cost one
by one.

Shapes: K answer tokens of all texts, N tokens of the row, V vocabulary.
"""

import dataclasses
import itertools
import os
from collections.abc import Sequence
from typing import Any

import torch

from tif.data.encoding import Encoded, collate
from tif.scoring.attention import NAME as ATTENTION
from tif.scoring.forward import run_model
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


class SharedPromptRow:
    """Groups of texts in one row: each group's common prompt, then the rest of each of its texts.

    A token sees its group's prompt and its own text up to itself; positions go on from the prompt.

    Attributes:
        ids, positions: (N,) tokens and their positions in their texts.
        owners: (N,) group and text of each token; text `SHARED` = all texts of the group.
        predicting, targets: (K,) the place in the row that predicts each answer token, and the
            token.
        counts: each text's number of answer tokens.
    """

    def __init__(self, groups: Sequence[Sequence[Encoded]]) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.owners: list[tuple[int, int]] = []
        self.predicting: list[int] = []
        self.targets: list[int] = []
        self.counts: list[int] = []
        for group, texts in enumerate(groups):
            shared = len(os.path.commonprefix([text.input_ids for text in texts]))
            prompt_start = len(self.ids)
            self._append(texts[0].input_ids[:shared], 0, (group, SHARED))
            for number, text in enumerate(texts):
                text_start = len(self.ids) - shared  # as if all of the text stood here
                self._append(text.input_ids[shared:], shared, (group, number))
                scored = [t for t in range(1, len(text.input_ids)) if text.uw[t] or text.gw[t]]
                for position in scored:
                    start = prompt_start if position - 1 < shared else text_start
                    self.predicting.append(start + position - 1)
                    self.targets.append(text.input_ids[position])
                self.counts.append(len(scored))

    def _append(self, ids: list[int], position: int, owner: tuple[int, int]) -> None:
        self.ids += ids
        self.positions += range(position, position + len(ids))
        self.owners += [owner] * len(ids)

    def inputs(self, device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Return the arguments of a model's `forward`; the mask is (1, 1, N, N), 0 where seen."""
        group, text = torch.tensor(self.owners, device=device).T
        same_group = group[:, None] == group
        same_text = (text == SHARED) | (text[:, None] == text)
        is_seen = (same_group & same_text).tril()
        mask = torch.zeros(is_seen.shape, dtype=dtype, device=device)
        mask.masked_fill_(~is_seen, torch.finfo(dtype).min)
        return {
            "input_ids": torch.tensor([self.ids], device=device),
            "position_ids": torch.tensor([self.positions], device=device),
            "attention_mask": mask[None, None],
            "logits_to_keep": torch.tensor(self.predicting, device=device),
        }


def answer_logits(
    model: torch.nn.Module, groups: Sequence[Sequence[Encoded]], batching: str, pad_id: int = 0
) -> AnswerLogits:
    """Return the logits of the answer tokens of all texts.

    Args:
        model: a Hugging Face causal LM.
        groups: texts that share a prompt (or one text).
        batching: "packed": all groups in one row; "padded": the texts in one rectangular forward.
        pad_id: padding's id.
    """
    weight = next(model.parameters())
    if batching == "packed" and _can_share_prompts(model):
        row = SharedPromptRow(groups)
        inputs = row.inputs(weight.device, weight.dtype)
        logits = run_model(model, inputs, use_cache=False).logits[0]
        return AnswerLogits(logits, torch.tensor(row.targets, device=weight.device), row.counts)
    texts = list(itertools.chain(*groups))
    batch = collate(texts, range(len(texts)), pad_id).to(weight.device)
    layout = lay_out(model, batch, batching)
    logits = layout.select_predictions(run_model(model, layout.inputs).logits)
    return AnswerLogits(logits, layout.targets, batch.answer[:, 1:].sum(1).tolist())


def _can_share_prompts(model: torch.nn.Module) -> bool:
    """Return whether one (1, 1, N, N) mask serves all layers of the model.

    Layers with windows or chunks need masks of their own, and flash attention takes none: there
    each text stands in the row with its prompt, and transformers keeps the texts apart.
    """
    config: Any = getattr(model, "config", None)
    if config is None:
        return True
    text_config = config.get_text_config()
    layer_types = getattr(text_config, "layer_types", None)
    if layer_types:
        has_windows = set(layer_types) != {"full_attention"}
    else:
        windows = [name for name in vars(text_config) if "window" in name or "chunk" in name]
        has_windows = any(getattr(text_config, name) for name in windows)
    takes_mask = config._attn_implementation in ("sdpa", "eager", ATTENTION)
    return takes_mask and not has_windows
