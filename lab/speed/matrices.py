"""The matrix products of a training step: how many operations, and how fast this machine does them.

Called by what=ways for the share of the machine's rate that a step reaches. A form of matrices is
(outputs, inputs, is_trained, is_head); the LM head runs on answer tokens only.
"""

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from tif.bench.process import read_clock
from tif.data.encoding import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Form = tuple[int, int, bool, bool]


def count_forms(policy: "PreTrainedModel") -> Counter[Form]:
    """Return how many linear layers the model has of each form."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layers

    model: Any = policy
    head = model.get_output_embeddings()
    forms: Counter[Form] = Counter()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            # The layer's own sizes: its weight may be packed in four bits.
            outputs, inputs = layer.out_features, layer.in_features
        elif isinstance(layer, Conv1D):
            outputs, inputs = layer.nf, layer.nx
        else:
            continue
        forms[outputs, inputs, layer.weight.requires_grad, layer is head] += 1
    return forms


def count_operations(policy: "PreTrainedModel", batch: Batch) -> float:
    """Return multiplications and additions of forward and backward of a step."""
    tokens, answer_tokens = count_tokens(batch)
    total = 0.0
    for (outputs, inputs, is_trained, is_head), count in count_forms(policy).items():
        products = 3 if is_trained else 2  # LoRA's base has no gradient
        total += 2.0 * products * outputs * inputs * count * (answer_tokens if is_head else tokens)
    return total


def measure_rate(policy: "PreTrainedModel", batch: Batch) -> float:
    """Return FLOP/s of the step's matrix products alone, each with torch's own product."""
    tokens, answer_tokens = count_tokens(batch)
    seconds = 0.0
    for form, count in count_forms(policy).items():
        seconds += count * _product_seconds(form, answer_tokens if form[3] else tokens, policy)
    return count_operations(policy, batch) / seconds


def _product_seconds(form: Form, tokens: int, policy: "PreTrainedModel") -> float:
    """Return the median seconds of a matrix's forward and backward products."""
    outputs, inputs, is_trained, _ = form
    product = torch.nn.functional.linear
    place: dict[str, Any] = {"device": policy.device, "dtype": policy.dtype}
    x = torch.randn(tokens, inputs, **place)
    weight = torch.randn(outputs, inputs, **place)
    gradient = torch.randn(tokens, outputs, **place)
    seconds = []
    for _ in range(6):
        start = read_clock(policy.device.type)
        product(x, weight)
        product(gradient, weight.t())
        if is_trained:
            product(gradient.t(), x.t())
        seconds.append(read_clock(policy.device.type) - start)
    return statistics.median(seconds[1:])


def count_tokens(batch: Batch) -> tuple[int, int]:
    """Return all real tokens, and the answer tokens that are predicted; retain samples included."""
    tokens, answer_tokens = int(batch.lengths.sum()), int(batch.answer[:, 1:].sum())
    if batch.retain is None:
        return tokens, answer_tokens
    retain_tokens, retain_answer_tokens = count_tokens(batch.retain)
    return tokens + retain_tokens, answer_tokens + retain_answer_tokens
