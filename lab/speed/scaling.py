"""what=scaling: the cost of a step as one size grows; random weights, random tokens.

A step should be linear in tokens, whatever samples they come in, and flat in the padding that a
rectangle would have. Memory should be flat in samples, since a step scores its batch in parts,
and in answer tokens beyond loss.chunk_tokens.
"""

import dataclasses
import random
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from lab.speed.settings import SpeedSettings
from tif import losses
from tif.bench.process import PeakMemory, run_alone
from tif.bench.step import make_idle_optimizer, make_random_model, make_step, take_step
from tif.data.encoding import Encoded, Encoder, collate
from tif.data.samples import Benchmark
from tif.models.load import load_tokenizer
from tif.probes.packed_rows import choose_batching
from tif.training.datamodule import UnlearningDataModule
from tif.utils.terminal import track
from tif.utils.torch_state import set_training_mode

SMALL_SHAPE = {
    "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
EVEN = [64] * 16
# What grows, its size, the samples' lengths in tokens, the vocabulary.
CASES: list[tuple[str, int, list[int], int]] = [
    *(("samples", n, [64] * n, 32_000) for n in (8, 16, 32, 64)),
    *(("tokens a sample", n, [n] * (4096 // n), 32_000) for n in (32, 128, 512)),
    *(("vocabulary", n, EVEN, n) for n in (8_000, 32_000, 128_000)),
    *(("samples, vocabulary of 128,000", n, [64] * n, 128_000) for n in (16, 32, 64)),
    # The same tokens, then as many again as padding: 1 sample of 512 beside 16 of 32.
    ("padding (%)", 0, EVEN, 32_000),
    ("padding (%)", 88, [512, *[32] * 16], 32_000),
]
COLUMNS = {
    "growing": "{growing}",
    "size": "{size:,}",
    "tokens": "{tokens:,}",
    "seconds": "{seconds:.3f}",
    "us/token": "{us_per_token:.0f}",
    "memory (MB)": "{memory_mb:,.0f}",
}


def measure(settings: SpeedSettings) -> list[dict[str, Any]]:
    """Return rows of growing, size, tokens, seconds (median), us_per_token and memory_mb.

    Memory is above weights, gradients and optimizer.
    """
    return [run_alone(measure_case, settings, *case) for case in track(CASES, "scaling")]


def measure_case(
    settings: SpeedSettings, growing: str, size: int, lengths: Sequence[int], vocabulary: int
) -> dict[str, Any]:
    """Return the row of a case."""
    shape = {**(settings.model.init or SMALL_SHAPE), "vocab_size": vocabulary}
    policy = make_random_model(dataclasses.replace(settings.model, init=shape), settings.device)
    encoder = Encoder(load_tokenizer(settings.model, ["a text"]), settings.data.prompts)
    loss = losses.make_loss(beta=0.3, pl_weight=0.01, retain="none")
    empty = Benchmark("random", (), (), {})
    data = UnlearningDataModule(empty, encoder, settings.data, loss)
    data.items = make_samples(lengths)
    set_training_mode(policy)
    texts = [item.input_ids for item in data.items]
    batching = choose_batching(settings.data.batching, policy, texts)
    data.data = dataclasses.replace(settings.data, batching=batching)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    optimizer = make_idle_optimizer(policy)
    batch = collate(data.items, range(len(data.items)), pad_id=0).to(policy.device)
    memory = PeakMemory(settings.device)
    step = make_step(policy, data)
    take_step(step, optimizer, batch)  # warm up
    memory.restart()
    steps = [take_step(step, optimizer, batch) for _ in range(settings.repeats)]
    seconds, tokens = statistics.median(seconds for _, seconds in steps), sum(lengths)
    return {
        "growing": growing, "size": size, "tokens": tokens, "seconds": round(seconds, 4),
        "us_per_token": round(1e6 * seconds / tokens, 1), "memory_mb": round(memory.peak_mb(), 1),
    }  # fmt: skip


def make_samples(lengths: Sequence[int]) -> list[Encoded]:
    """Return random tokens: half prompt, half answer, every third token of which is unwanted."""
    generator = random.Random(0)
    samples = []
    for number, length in enumerate(lengths):
        ids = [generator.randrange(1, 8000) for _ in range(length)]
        answer = range(length // 2, length)
        unwanted = [position in answer and position % 3 == 0 for position in range(length)]
        general = [position in answer and position % 3 != 0 for position in range(length)]
        samples.append(Encoded(str(number), ids, unwanted, general))
    return samples
