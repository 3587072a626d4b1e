"""Sections `run` (the run's folder, seed and checkpoints) and `logger`."""

import dataclasses
import re

from tif.config.errors import brief
from tif.config.keys import key

UPLOADS = ("model", "spans", "records", "report")
TEXTS = ("spans", "records", "report")  # of these, what holds texts of the data
OTHER_FOLDERS = ("stages", "references", "spans")  # beside the runs


@dataclasses.dataclass
class RunKeys:
    """Where a run lives and what it keeps."""

    name: str = key("auto", "the run's folder is <folder>/<name>, without a /; a name in use gets "
        "-2, -3, ...; auto = method, data and model, as tpo_forget10_Llama-3.2-3B-Instruct. What "
        "the command changes follows, also after a file's name: quickstart_lr1e-4_seed3")
    folder: str = key("runs", "parent of run folders; stages live in <folder>/stages")
    seed: int = key(0, "owner of every random draw: initial weights, batch order, retain pairing",
        at_least=0, at_most=2**32)
    resume: str = key("auto", "auto: an unfinished run of the same config continues from its "
        "newest complete checkpoint; never: a new folder; or the path of a checkpoint, whose run "
        "continues from there")
    keep_checkpoints: int = key(2, "checkpoints that stay for resuming (the newest); with 1, a "
        "damaged one means starting over; 0 writes none", at_least=0)
    checkpoint_every_n_steps: int | None = key(None, "optimizer steps between checkpoints within "
        "an epoch; null = none there (but one at SIGTERM, SIGUSR1)", at_least=1)
    checkpoint_every_n_seconds: float = key(60.0, "seconds between the checkpoints of epochs: an "
        "epoch that ends sooner has none, unless it is the last; 0 = one an epoch", at_least=0)
    export: bool = key(True, "write the policy in Hugging Face format to model/")

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""
        parts, longest = [self.name], 100
        if re.fullmatch(r"[^/]+/[^/]+/seed\d+", self.name):  # tif.sweep names its runs so
            parts, longest = self.name.split("/"), 250
        if all(is_name(part, longest) for part in parts):
            return []
        return [f"run.name: {describe_name(longest)}, got {brief(self.name)}"]


def describe_name(longest: int = 100) -> str:
    """Return what an error says of a text that is no name: see `is_name`."""
    return (f"want a name (no /, no control characters, no . or - at its start, at most {longest} "
        f"bytes, none of {', '.join(OTHER_FOLDERS)})")


def is_name(text: str, longest: int = 100) -> bool:
    """Return whether a text can name a folder beside those that tif makes there itself."""
    is_plain = text.isprintable() and text == text.strip() and not re.search(r"[/\\]", text)
    return bool(is_plain and re.match(r"[^.-]", text) and text not in OTHER_FOLDERS
        and len(text.encode()) <= longest)


@dataclasses.dataclass
class Wandb:
    """Weights & Biases, through Lightning's logger; the key comes from the environment only."""

    enabled: bool = key(False, "also log to W&B")
    project: str = key("tif", "W&B project")
    entity: str | None = key(None, "W&B entity; null = your default")
    offline: bool = key(False, "write to disk only, for `wandb sync` later")
    samples: int = key(0, "questions of each set, with answers, in the tables of samples; 0 = no "
        "text of the data leaves the machine", at_least=0)
    upload: list[str] = key([], f"what is sent and not only named by its path: any of "
        f"{', '.join(UPLOADS)}")

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""
        problems = []
        for name in self.upload:
            if name not in UPLOADS:
                problems.append(f"upload: want any of {', '.join(UPLOADS)}, got {brief(name)}")
            elif name in TEXTS and self.samples == 0:
                problems.append(f"upload: {name} hold texts of the data, and samples=0 lets no "
                    "text leave the machine; want samples=1 or more")
        return problems


@dataclasses.dataclass
class Logger:
    """metrics.jsonl is always written."""

    wandb: Wandb = dataclasses.field(default_factory=Wandb)

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""
        return [f"logger.wandb.{problem}" for problem in self.wandb.find_problems()]
