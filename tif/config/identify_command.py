"""The keys of `tif identify`: those of a run, and the file that is written."""

import dataclasses

from tif.config.schema import Config, key


@dataclasses.dataclass
class Identify(Config):
    """A run's configuration, of which only what the identifier reads is checked, and the output."""

    out: str | None = key(
        None, "span file to write (.jsonl); null = <run.folder>/spans/<kind>-<hash>.jsonl"
    )

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""
        problems = self.data.find_problems() + self.identifier.find_problems(self.model)
        return problems + self.logger.find_problems()
