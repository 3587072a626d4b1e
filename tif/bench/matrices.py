"""The matrix products of a training step: how many operations, and how fast this machine does them.

Called by what=step for the share of the machine's rate that a step reaches.
"""

import dataclasses
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from tif.bench.process import read_clock
from tif.data.encoding import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REPEATS = 6  # of each product; the first one is left out


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Weights of linear layers that have the same form.

    Attributes:
        outputs, inputs: the size of the matrix.
        is_trained: whether it gets a gradient.
        is_head: whether it is the LM head, which runs on answer tokens only.
        count: how many matrices of this form the model has.
    """

    outputs: int
    inputs: int
    is_trained: bool
    is_head: bool
    count: int

    def operations(self, tokens: int) -> float:
        """Return multiplications and additions of forward and backward.

        A trained matrix has three products, one that is not trained (LoRA's base) has two.
        """
        products = 3 if self.is_trained else 2
        return 2.0 * products * self.outputs * self.inputs * self.count * tokens


def list_matrices(policy: "PreTrainedModel") -> list[Matrix]:
    """Return the weights of the linear layers, those of one form together."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layers

    model: Any = policy
    head = model.get_output_embeddings()
    forms: Counter[tuple[int, int, bool, bool]] = Counter()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            # From the layer's own sizes: its weight may be packed in four bits.
            size = layer.out_features, layer.in_features
            forms[(*size, layer.weight.requires_grad, layer is head)] += 1
        elif isinstance(layer, Conv1D):
            forms[layer.nf, layer.nx, layer.weight.requires_grad, False] += 1
    return [Matrix(*form, count) for form, count in forms.items()]


def count_operations(policy: "PreTrainedModel", batch: Batch) -> float:
    """Return multiplications and additions of a step: blocks on all tokens, head on answers."""
    tokens, answer_tokens = count_tokens(batch)
    total = 0.0
    for matrix in list_matrices(policy):
        total += matrix.operations(answer_tokens if matrix.is_head else tokens)
    return total


def measure_rate(policy: "PreTrainedModel", batch: Batch) -> float:
    """Return FLOP/s of the step's matrix products alone, each with torch's own product."""
    tokens, answer_tokens = count_tokens(batch)
    seconds = 0.0
    for matrix in list_matrices(policy):
        seconds += _product_seconds(matrix, answer_tokens if matrix.is_head else tokens, policy)
    return count_operations(policy, batch) / seconds


def _product_seconds(matrix: Matrix, tokens: int, policy: "PreTrainedModel") -> float:
    """Return the median seconds of the forward and backward products of all matrices of a form."""
    product, device = torch.nn.functional.linear, policy.device.type

    def random(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, device=policy.device, dtype=policy.dtype)

    x = random(tokens, matrix.inputs)
    weight = random(matrix.outputs, matrix.inputs)
    gradient = random(tokens, matrix.outputs)
    seconds = []
    for _ in range(REPEATS):
        start = read_clock(device)
        product(x, weight)
        product(gradient, weight.t())
        if matrix.is_trained:
            product(gradient.t(), x.t())
        seconds.append(read_clock(device) - start)
    return matrix.count * statistics.median(seconds[1:])


def count_tokens(batch: Batch) -> tuple[int, int]:
    """Return all real tokens, and the answer tokens that are predicted; retain samples included."""
    tokens, answer_tokens = int(batch.lengths.sum()), int(batch.answer[:, 1:].sum())
    if batch.retain is not None:
        retain_tokens, retain_answer_tokens = count_tokens(batch.retain)
        tokens, answer_tokens = tokens + retain_tokens, answer_tokens + retain_answer_tokens
    return tokens, answer_tokens
