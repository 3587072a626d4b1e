"""python -m tif.evaluate: the metrics of a recorded evaluation, computed again without a model, with intervals.

    python -m tif.evaluate records=LOG [retain_records=RETAIN] [allow_mismatch=true] [--json]
    python -m tif.evaluate --metrics

LOG and RETAIN are evaluations of a model and of the retain model: the eval/<epoch> folder of a run, the
eval_log_aggregated.json of locuslab/tofu, NPO or the TIF release, or open-unlearning's TOFU_EVAL.json.

    --json      on stdout nothing but JSON: {"model_utility", "forget_quality", "tasks": {set: {metric: mean}},
                "intervals" (the same, [low, high]), "mismatch", ...}; null = the records cannot tell
    --metrics   what each metric means: formula, range, which way is better, value of a perfect unlearning

Every number comes with its bootstrap 95 % interval over questions (tif.metrics.intervals says how).
Exit code: 0 done, 2 wrong input (one line a problem).
"""

import contextlib
import dataclasses
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tif import config
from tif.schema import key

if TYPE_CHECKING:
    from tif.records import Evaluation

SETS = ("forget", "retain", "real_authors", "world_facts")
CARDS = ("probability", "rouge", "truth_ratio", "model_utility", "forget_quality")


@dataclasses.dataclass
class Evaluate:
    """What is evaluated, against what."""

    records: str | None = key(None, "the model's evaluation: a run's eval/<epoch> folder or an evaluation log")
    retain_records: str | None = key(None, "the retain model's evaluation, likewise; null = no forget quality")
    allow_mismatch: bool = key(False, "compute forget quality also where the two do not compare; the output says so")
    draws: int = key(2000, "bootstrap draws behind each interval", at_least=100, at_most=100_000)
    seed: int = key(0, "owner of the bootstrap's draws; nothing else is drawn", at_least=0, at_most=2**32)

    def combinations(self) -> list[str]:
        """Problems between keys, one line each."""
        wanted = "want a run's eval/<epoch> folder or an evaluation log (see --help), got null"
        return [] if self.records else [f"records: {wanted}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 done, 2 wrong input (one line a problem)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(words):
        print(f"{__doc__}\nKeys, with their defaults:\n{config.help_text(Evaluate)}")
        return 0
    if words == ["--metrics"]:
        print(cards())
        return 0
    try:
        found = evaluate(config.read(Evaluate, [word for word in words if word != "--json"]))
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if "--json" in words:
        print(json.dumps(found, indent=1, allow_nan=False))
        return 0
    from tif import report

    report.show_evaluation(found)
    return 0


def evaluate(cfg: Evaluate) -> dict[str, Any]:
    """Read the evaluations and compute everything: the content of `--json`.

    Raises:
        ConfigError: With one line for each bad input.
    """
    problems: list[str] = []
    ours = _read("records", cfg.records, problems)
    retain = _read("retain_records", cfg.retain_records, problems)
    if problems or ours is None:
        raise config.ConfigError("\n".join(problems))
    from tif.metrics import intervals, matching, tofu

    mismatch = matching.mismatch(ours, retain) if retain else None
    if retain:
        with _told(f"retain_records: {cfg.retain_records}"):
            if mismatch and matching.no_forget(ours, retain):
                raise ValueError(mismatch)
            if mismatch and not cfg.allow_mismatch:
                raise ValueError(f"{mismatch}; allow_mismatch=true computes it all the same")
            tofu.log_truth_ratios(retain.sets["forget"])
    names = [name for name in SETS if name in ours.sets]
    quality, about_quality = None, None
    with _told(f"records: {cfg.records}"):
        values = {name: tofu.values(ours.sets[name]) for name in names}
        if retain:
            quality = tofu.forget_quality(ours, retain, allow_mismatch=True)
            if other := matching.aligned(ours.sets["forget"], retain.sets["forget"]):
                ratios = tofu.log_truth_ratios(ours.sets["forget"]), tofu.log_truth_ratios(other)
                about_quality = intervals.of_forget_quality(*ratios, cfg.draws, cfg.seed)
    means = {f"{n}/{m}": None if x is None else float(x.mean()) for n, own in values.items() for m, x in own.items()}
    parts = tofu.utility_parts(means)
    around = intervals.of_means(values, cfg.draws, cfg.seed)
    return {
        "model_utility": None if parts is None else float(tofu.harmonic_mean(parts)),
        "forget_quality": quality,
        "tasks": {n: {m: means[f"{n}/{m}"] for m in own} for n, own in values.items()},
        "intervals": {
            "model_utility": around["utility/model"],
            "forget_quality": about_quality,
            "tasks": {n: {m: around[f"{n}/{m}"] for m in own} for n, own in values.items()},
        },
        "mismatch": mismatch,
        "questions": {n: len(ours.sets[n].records) for n in names},
        "model": ours.model,
        "protocol": dict(ours.protocol),
        "retain_model": retain.model if retain else None,
        "retain_protocol": dict(retain.protocol) if retain else None,
        "bootstrap": {"level": intervals.LEVEL, "draws": cfg.draws, "seed": cfg.seed},
    }


@contextlib.contextmanager
def _told(where: str) -> Iterator[None]:
    """Turn a ValueError raised inside into the user's, told with its place."""
    try:
        yield
    except ValueError as error:
        raise config.ConfigError(f"{where}: {error}") from None


def _read(setting: str, path: str | None, problems: list[str]) -> "Evaluation | None":
    """The evaluation at `path`; what is wrong with it goes to `problems`."""
    if path is None:
        return None
    from tif import records

    try:
        found = records.read(path)
    except FileNotFoundError:
        problems.append(f"{setting}: {path}: no such file or folder")
    except (OSError, ValueError) as error:
        problems.append(f"{setting}: {error}")
    else:
        empty = [name for name, own in found.sets.items() if not own.records]
        problems += [f"{setting}: {path}: {name}: the set has no records" for name in empty]
        if not found.sets:
            problems.append(f"{setting}: {path}: no sets in it")
        return found
    return None


def cards() -> str:
    """Each metric's docstring, as far as it is about the metric."""
    from tif.metrics import tofu

    texts = {name: inspect.getdoc(getattr(tofu, name)) or "" for name in CARDS}
    about = {name: text.split("\n\nArgs:")[0].split("\n\nRaises:")[0] for name, text in texts.items()}
    return "\n\n".join(f"{name}\n{textwrap.indent(text, '  ')}" for name, text in about.items())


if __name__ == "__main__":
    sys.exit(main())
