"""The keys of `tif bench`."""

import dataclasses
import os
from pathlib import Path

from tif.config.schema import Data, Identifier, Model, key

WORK = ("step", "eval", "identify", "startup", "scaling", "memory")


@dataclasses.dataclass
class BenchSettings:
    """What is measured, on what."""

    what: str = key("step", "the work to measure", choices=WORK)
    model: Model = dataclasses.field(default_factory=Model)
    data: Data = dataclasses.field(default_factory=Data)
    identifier: Identifier = dataclasses.field(default_factory=Identifier)
    batch_sizes: list[int] = key([4, 8, 16], "step: samples of a step")
    samples: int = key(64, "step: samples that each way trains on at each batch size", at_least=1)
    release: int = key(4, "step: largest batch for `release`, once; 0 = leave it out", at_least=0)
    retain: bool = key(False, "step: add a retain term, cross-entropy on a retain sample each")
    memory: bool = key(True, "step: measure memory too, at the smallest and largest batch size")
    questions: int | None = key(
        None, "eval: first n questions of each set; null = all, 300 of the retain set", at_least=1
    )
    max_new_tokens: int = key(200, "eval: tokens generated for an answer", at_least=1)
    words: int = key(
        175_000, "identify: words of the longest document (as many as MUSE Books)", at_least=1000
    )
    text: str | None = key(None, "identify: a text file; null = answers about invented authors")
    masked_lm: str | None = key(None, "identify: folder or hub name; null = a tiny BERT made here")
    causal_lm: str | None = key(None, "identify: folder or hub name; null = a tiny Llama made here")
    device: str = key("cpu", "cpu or cuda", choices=("cpu", "cuda"))
    threads: int | None = key(None, "threads of a CPU's work; null = torch's choice", at_least=1)
    repeats: int = key(5, "startup, scaling: repetitions (the median is shown)", at_least=1)

    def find_problems(self) -> list[str]:
        """Return problems between keys, one line each."""
        problems, sizes = [], self.batch_sizes
        if self.text and not Path(os.path.expanduser(self.text)).is_file():
            problems.append(f"text: no file {self.text}")
        if not sizes or min(sizes) < 1 or max(sizes) > self.samples:
            problems.append(f"batch_sizes: want sizes of 1 to samples={self.samples}, got {sizes}")
        return problems
