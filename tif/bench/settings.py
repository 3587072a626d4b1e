"""The keys of `tif bench`."""

import dataclasses

from tif.config.data import PLAIN
from tif.config.identifier import make_identifier
from tif.config.schema import Data, Identifier, Model, key


@dataclasses.dataclass
class BenchSettings:
    """What is measured, on what."""

    what: str = key("step", "the work to measure", choices=("step", "memory"))
    model: Model = dataclasses.field(default_factory=Model)
    data: Data = dataclasses.field(default_factory=lambda: Data(template=PLAIN))
    identifier: Identifier = dataclasses.field(default_factory=make_identifier)
    batch_sizes: list[int] = key([4, 8, 16], "samples of a step")
    samples: int = key(64, "samples to train on at each batch size", at_least=1)
    retain: bool = key(False, "add a retain term, cross-entropy on a retain sample each")
    memory: bool = key(True, "measure memory too")
    device: str = key("cpu", "cpu or cuda", choices=("cpu", "cuda"))
    threads: int | None = key(None, "threads of a CPU's work; null = torch's choice", at_least=1)

    def find_problems(self) -> list[str]:
        """Return problems between keys, one line each."""
        sizes = self.batch_sizes
        if sizes and min(sizes) >= 1 and max(sizes) <= self.samples:
            return []
        return [f"batch_sizes: want sizes of 1 to samples={self.samples}, got {sizes}"]
