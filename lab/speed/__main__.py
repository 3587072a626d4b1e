"""Compare the speed and memory of tif with other ways to do the same work.

    python -m lab.speed [what=ways|eval|identify|startup|scaling|memory] [key=value ...] [--json]

what=ways      A step of TPO, and three other ways to compute the same loss, in turns:
               `release` (every sample padded to 500 tokens, one forward of the policy for LPL and
               one for PL, a resident reference, logits of all positions), `two-pass` (the same,
               padded to the batch's longest sample) and `dynamic` (one forward of the policy,
               padded so). Seconds, ratios, tokens/s, the share of this machine's rate of matrix
               products, memory (no result = more than the machine has).
what=scaling   The cost of a step as samples, lengths and vocabulary grow, on random weights.
what=identify  Words per second and peak memory of masked_lm and causal_lm on one document of
               growing length, with tiny models made here (or yours). Words/s should stay level
               and memory flat, whatever the length.
what=eval      TOFU's questions scored and answered by tif, and in the way of its peers: every
               answer padded to 200 tokens, generations in the data's order. model.path: a model
               that was finetuned on TOFU.
what=startup   Seconds until --help, --print and a configuration error are answered.
what=memory    The memory that tif bench computes for a small model, and what it needs in training.

    python -m lab.speed model.path=../SmolLM2-135M data.benchmark=tofu data.path=../TOFU
    python -m lab.speed retain=true           the same with a retain term in the loss

Memory is measured in a process of its own each time, above weights, gradients and optimizer.
"""

from argparse import Namespace
from typing import Any

from lab.speed.settings import SpeedSettings
from tif.bench.command import measure_and_show
from tif.config import load as config
from tif.config.command import Command

MODULES = {"ways": "compare_ways", "eval": "evaluation", "identify": "identification",
    "memory": "memory_check"}  # fmt: skip


def compare(options: Namespace) -> Any:
    """Measure what the words name; return the rows for `--json`."""
    settings = config.read(SpeedSettings, options.words)
    module = MODULES.get(settings.what, settings.what)
    return measure_and_show(f"lab.speed.{module}", settings, options.json)


COMMAND = Command("speed", __doc__, compare, SpeedSettings, flags=("--json",))
main = COMMAND.main

if __name__ == "__main__":
    COMMAND.run()
