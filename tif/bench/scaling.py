"""what=scaling: the cost of a step as one thing grows; random weights, random tokens.

A step should be linear in tokens, whatever samples they come in, and flat in the padding that a
rectangle would have. Memory should be flat in samples, since a step scores its batch in parts,
and in answer tokens beyond loss.chunk_tokens.
"""

import dataclasses
import random
import statistics
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from tif.bench.process import PeakMemory, run_alone
from tif.bench.settings import BenchSettings
from tif.bench.table import make_plain_table
from tif.bench.training_setup import Samples, TrainingSetup, make_random_model
from tif.data.encoding import Encoded
from tif.utils.terminal import track

SMALL_SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One step.

    Attributes:
        growing: what grows.
        size: of that.
        lengths: tokens of each sample.
        vocabulary: of the model.
    """

    growing: str
    size: int
    lengths: tuple[int, ...] = (64,) * 16
    vocabulary: int = 32_000


CASES = (
    *(Case("samples", n, (64,) * n) for n in (8, 16, 32, 64)),
    *(Case("tokens a sample", n, (n,) * (4096 // n)) for n in (32, 128, 512)),
    *(Case("vocabulary", n, vocabulary=n) for n in (8_000, 32_000, 128_000)),
    *(Case("samples, vocabulary of 128,000", n, (64,) * n, 128_000) for n in (16, 32, 64)),
    # The same tokens, then as many again as padding: 1 sample of 512 beside 16 of 32.
    Case("padding (%)", 0),
    Case("padding (%)", 88, (512, *(32,) * 16)),
)


def measure(settings: BenchSettings) -> list[dict[str, Any]]:
    """Return rows of growing, size, tokens, seconds (median), us_per_token and memory_mb.

    Memory is above weights, gradients and optimizer.
    """
    return [run_alone(measure_case, settings, case) for case in track(CASES, "scaling")]


def measure_case(settings: BenchSettings, case: Case) -> dict[str, Any]:
    """Return the row of a case."""
    shape = {**(settings.model.init or SMALL_SHAPE), "vocab_size": case.vocabulary}
    model = dataclasses.replace(settings.model, init=shape)
    policy = make_random_model(model, settings.device)
    setup = TrainingSetup(settings, policy, Samples(make_samples(case.lengths)))
    optimizer, batch = setup.make_optimizer(), setup.make_batch()
    memory = PeakMemory(settings.device)
    way = setup.make_way("ours")
    setup.run_step(way, optimizer, batch)  # warm up
    memory.restart()
    steps = [setup.run_step(way, optimizer, batch) for _ in range(settings.repeats)]
    seconds = statistics.median(step_seconds for _, step_seconds in steps)
    tokens = sum(case.lengths)
    return {
        "growing": case.growing,
        "size": case.size,
        "tokens": tokens,
        "seconds": round(seconds, 4),
        "us_per_token": round(1e6 * seconds / tokens, 1),
        "memory_mb": round(memory.peak_mb(), 1),
    }


def make_samples(lengths: Sequence[int]) -> list[Encoded]:
    """Return random tokens: half prompt, half answer, every third token of which is unwanted."""
    generator = random.Random(0)
    samples = []
    for number, length in enumerate(lengths):
        ids = [generator.randrange(1, 8000) for _ in range(length)]
        answer = [position >= length // 2 for position in range(length)]
        unwanted = [answer[position] and position % 3 == 0 for position in range(length)]
        general = [answer[position] and not unwanted[position] for position in range(length)]
        samples.append(Encoded(str(number), ids, unwanted, general))
    return samples


def make_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the table for the terminal."""
    columns = {
        "growing": "{growing}",
        "size": "{size:,}",
        "tokens": "{tokens:,}",
        "seconds": "{seconds:.3f}",
        "us/token": "{us_per_token:.0f}",
        "memory (MB)": "{memory_mb:,.0f}",
    }
    return make_plain_table(rows, columns)
