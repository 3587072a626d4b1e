"""The matrix products of a training step: how many operations they are, and how fast this machine does them alone."""

import dataclasses
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from tif.bench.process import now

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tif.data.encoding import Batch


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Weights of one form.

    Attributes:
        out, into: their size.
        trained: whether they get a gradient.
        head: whether they are the LM head, which runs on answer tokens only.
        count: how many there are.
    """

    out: int
    into: int
    trained: bool
    head: bool
    count: int

    def flops(self, tokens: int, answers: int) -> float:
        """Multiplications and additions of forward and backward; what is not trained (LoRA's base) has two products."""
        return 2.0 * (2 + self.trained) * self.out * self.into * self.count * (answers if self.head else tokens)


def matrices(policy: "PreTrainedModel") -> list[Matrix]:
    """The linear layers' weights, those of one form together."""
    import torch
    from transformers.pytorch_utils import Conv1D  # GPT-2's

    model: Any = policy
    head, found = model.get_output_embeddings(), Counter[tuple[int, int, bool, bool]]()
    for m in model.modules():
        if isinstance(m, torch.nn.Linear):  # its weight may be packed in four bits
            found[m.out_features, m.in_features, m.weight.requires_grad, m is head] += 1
        elif isinstance(m, Conv1D):
            found[m.nf, m.nx, m.weight.requires_grad, False] += 1
    return [Matrix(*key, count) for key, count in found.items()]


def flops(policy: "PreTrainedModel", batch: "Batch") -> float:
    """Multiplications and additions of a step: blocks on all tokens, head on answer tokens."""
    tokens, answers = _tokens(batch)
    return sum(m.flops(tokens, answers) for m in matrices(policy))


def rate(policy: "PreTrainedModel", batch: "Batch") -> float:
    """FLOP/s of the step's matrix products alone: each weight's forward and its one or two backward ones.

    With torch's own product.
    """
    return flops(policy, batch) / _seconds(policy, batch)


def _seconds(policy: "PreTrainedModel", batch: "Batch") -> float:
    import torch

    product = torch.nn.functional.linear
    tokens, answers = _tokens(batch)
    place: Any = {"device": policy.device, "dtype": policy.dtype}
    spent = 0.0
    for m in matrices(policy):
        n = answers if m.head else tokens
        x, w, g = (torch.randn(size, **place) for size in ((n, m.into), (m.out, m.into), (n, m.out)))
        seconds = []
        for _ in range(6):
            since = now(policy.device.type)
            _ = product(x, w), product(g, w.t()), product(g.t(), x.t()) if m.trained else None
            seconds.append(now(policy.device.type) - since)
        spent += m.count * statistics.median(seconds[1:])
    return spent


def _tokens(batch: "Batch") -> tuple[int, int]:
    """All real tokens, answer tokens that are predicted."""
    return int(batch.lengths.sum()), int(batch.answer[:, 1:].sum())
