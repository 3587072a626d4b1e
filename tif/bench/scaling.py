"""what=scaling: the cost of a step as it grows in one direction at a time; random weights, random tokens.

A step is linear in tokens, whatever samples they come in, and flat in the padding that a rectangle would have; memory
is flat in samples, since a step scores its batch in parts, and in answer tokens beyond loss.chunk_tokens.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tif.bench.process import Memory, alone

if TYPE_CHECKING:
    from rich.table import Table

    from tif.bench.command import Bench
    from tif.data.encoding import Encoded

SMALL = {
    "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 32_000, "tie_word_embeddings": True,
}  # fmt: skip
EVEN = [64] * 16


def _cases() -> list[tuple[str, int, list[int], int]]:
    """What grows, its size, the samples' lengths, the vocabulary."""
    cases = [("samples", n, [64] * n, 32_000) for n in (8, 16, 32, 64)]
    cases += [("tokens a sample", n, [n] * (4096 // n), 32_000) for n in (32, 128, 512)]
    cases += [("vocabulary", v, EVEN, v) for v in (8_000, 32_000, 128_000)]
    cases += [("samples, vocabulary of 128,000", n, [64] * n, 128_000) for n in (16, 32, 64)]
    # the same tokens, and as many again as padding: 1 sample of 512 beside 16 of 32
    cases += [("padding (%)", 0, EVEN, 32_000), ("padding (%)", 88, [512] + [32] * 16, 32_000)]
    return cases


def rows(cfg: "Bench") -> list[dict[str, Any]]:
    """A row a case: growing, size, tokens, seconds (median), us_per_token, memory_mb above weights and optimizer."""
    from tif.utils.terminal import track

    return [alone(_measure, cfg, *case) for case in track(_cases(), "scaling")]


def _measure(cfg: "Bench", growing: str, size: int, lengths: list[int], vocabulary: int) -> dict[str, Any]:
    from tif.bench.step import Stand, random_model

    shape = (cfg.model.init or SMALL) | {"vocab_size": vocabulary}
    model = random_model(dataclasses.replace(cfg.model, init=shape), cfg.device)
    bench = Stand(cfg, (model, _items(lengths)))
    optimizer, batch = bench.optimizer(), bench.all()
    memory = Memory(cfg.device)
    way = bench.way("ours")
    bench.step(way, optimizer, batch)  # warm up
    memory.restart()
    seconds = statistics.median(bench.step(way, optimizer, batch)[1] for _ in range(cfg.repeats))
    tokens = sum(lengths)
    return {
        "growing": growing, "size": size, "tokens": tokens, "seconds": round(seconds, 4),
        "us_per_token": round(1e6 * seconds / tokens, 1), "memory_mb": round(memory.peak_mb(), 1),
    }  # fmt: skip


def _items(lengths: Sequence[int]) -> list["Encoded"]:
    """Half prompt, half answer; every third answer token unwanted."""
    import random

    from tif.data.encoding import Encoded

    draw, found = random.Random(0), []
    for i, n in enumerate(lengths):
        answer = [t >= n // 2 for t in range(n)]
        uw = [a and t % 3 == 0 for t, a in enumerate(answer)]
        ids = [draw.randrange(1, 8000) for _ in range(n)]
        found.append(Encoded(str(i), ids, uw, [a and not u for a, u in zip(answer, uw, strict=True)]))
    return found


def table(rows: Sequence[dict[str, Any]]) -> "Table":
    """For the terminal."""
    from rich.table import Table

    made = Table("growing", "size", "tokens", "seconds", "us/token", "memory (MB)", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        made.add_row(row["growing"], f"{row['size']:,}", f"{row['tokens']:,}", f"{row['seconds']:.3f}",
                     f"{row['us_per_token']:.0f}", f"{row['memory_mb']:,.0f}")  # fmt: skip
    return made
