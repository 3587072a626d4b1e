"""The list of refusals that idk, dpo and kto prefer to the forgotten answers by default: refusals.txt, our own."""

import functools
from pathlib import Path


@functools.cache
def refusals() -> tuple[str, ...]:
    """A hundred ways to say that one does not know, a line each; none names a question or a subject."""
    return tuple(Path(__file__).with_name("refusals.txt").read_text(encoding="utf-8").splitlines())
