"""The keys of `python -m lab.speed`."""

import dataclasses
import os
from pathlib import Path

from tif.bench.settings import BenchSettings
from tif.config.schema import key

WORK = ("ways", "eval", "identify", "startup", "scaling", "memory")


@dataclasses.dataclass
class SpeedSettings(BenchSettings):
    """Settings of a measurement: the work, the model and the data."""

    what: str = key("ways", "the work to measure", choices=WORK)
    release: int = key(4, "ways: largest batch for `release`, once; 0 = leave it out", at_least=0)
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
    repeats: int = key(5, "startup, scaling: repetitions (the median is shown)", at_least=1)

    def find_problems(self) -> list[str]:
        """Return problems between keys, one line each."""
        problems = super().find_problems()
        if self.text and not Path(os.path.expanduser(self.text)).is_file():
            problems.append(f"text: no file {self.text}")
        return problems
