"""The refusals that idk, dpo and kto prefer to the forgotten answers by default.

Called by `training.datamodule`. The texts are in refusals.txt; they are our own.
"""

import functools
from pathlib import Path


@functools.cache
def read_refusals() -> tuple[str, ...]:
    """Return a hundred ways to say that one does not know; none names a question or a subject."""
    path = Path(__file__).with_name("refusals.txt")
    return tuple(path.read_text(encoding="utf-8").splitlines())
