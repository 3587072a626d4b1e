"""python -m tif.bench: what the work costs, as ratios and growth, measured on this machine.

    python -m tif.bench [what=step|eval|identify|startup|scaling|memory] [key=value ...] [--json] [--help]

what=step      a TPO step, interleaved with three other ways to compute the same loss: `release` (every sample padded to
               500 tokens, one forward of the policy for LPL and one for PL, a resident reference, logits of all
               positions), `two-pass` (the same, padded to the batch's longest) and `dynamic` (one forward of the
               policy, padded so). Seconds, ratios, tokens/s, the share of this machine's matrix-product rate, memory.
what=scaling   the cost of a step as samples, lengths and vocabulary grow, on random weights.
what=identify  words per second and peak memory of masked_lm and causal_lm on one document of growing length, with tiny
               models made here (or yours): words/s stay level and memory flat, whatever the length.
what=eval      TOFU's questions scored and answered, set by set in turn with every answer padded to 200 tokens and
               generations in the data's order, as its peers do it. model.path: a model that was finetuned on TOFU.
what=startup   seconds until --help, --print and a configuration error are answered.

    python -m tif.bench model.path=../SmolLM2-135M data.benchmark=tofu data.path=../TOFU data.split=forget05

Memory is measured in a process of its own each, above weights, gradients and optimizer. Exit code: 0 done, 2 wrong
input (one line a problem).
"""

import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tif.config import load as config
from tif.config.errors import ConfigError
from tif.config.schema import Data, Identifier, Model, key

# Each has rows(cfg) -> list of dicts, and table(rows) for the terminal.
WORK = {
    "step": "tif.bench.step",
    "eval": "tif.bench.evaluation",
    "identify": "tif.bench.identification",
    "startup": "tif.bench.startup",
    "scaling": "tif.bench.scaling",
    "memory": "tif.bench.memory",
}


@dataclasses.dataclass
class Bench:
    """What is measured, on what."""

    what: str = key("step", "the work to measure", choices=tuple(WORK))
    model: Model = dataclasses.field(default_factory=Model)
    data: Data = dataclasses.field(default_factory=Data)
    identifier: Identifier = dataclasses.field(default_factory=Identifier)
    batch_sizes: list[int] = key([4, 8, 16], "step: samples of a step")
    samples: int = key(64, "step: samples that each way trains on at each batch size, drawn from the data", at_least=1)
    release: int = key(4, "step: largest batch for `release`, once; 0 = leave it out", at_least=0)
    memory: bool = key(True, "step: measure memory too, at the smallest and the largest batch size")
    questions: int | None = key(
        None, "eval: the first n questions of each set; null = all, and 300 of the retain set", at_least=1
    )
    max_new_tokens: int = key(200, "eval: tokens generated for an answer", at_least=1)
    words: int = key(175_000, "identify: words of the longest document (MUSE Books has about as many)", at_least=1000)
    text: str | None = key(None, "identify: a text file for the words; null = answers about invented authors")
    masked_lm: str | None = key(None, "identify: folder or hub name of a masked LM; null = a tiny BERT made here")
    causal_lm: str | None = key(None, "identify: folder or hub name of a causal LM; null = a tiny Llama made here")
    device: str = key("cpu", "cpu or cuda", choices=("cpu", "cuda"))
    threads: int | None = key(None, "threads of a CPU's measured work; null = torch's own choice", at_least=1)
    repeats: int = key(5, "startup, scaling: repetitions of each measurement (the median is shown)", at_least=1)

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""
        problems = []
        if self.text and not Path(self.text).expanduser().is_file():
            problems.append(f"text: no file {self.text}")
        if not self.batch_sizes or min(self.batch_sizes) < 1 or max(self.batch_sizes) > self.samples:
            problems.append(f"batch_sizes: want sizes of 1 to samples={self.samples}, got {self.batch_sizes}")
        return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 done, 2 wrong input (one line a problem)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if {"-h", "--help"} & set(words):
            print(f"{__doc__}\nKeys, with their defaults:\n{config.help_text(Bench)}")
            return 0
        cfg = config.read(Bench, [word for word in words if word != "--json"])
        work = importlib.import_module(WORK[cfg.what])
        rows = work.rows(cfg)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if "--json" in words:
        print(json.dumps(rows, indent=1))
    else:
        from tif.utils.terminal import console

        console.print(work.table(rows))
    return 0
