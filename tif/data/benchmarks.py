"""Evaluation sets by the benchmark's name: what `eval.benchmarks` names besides the run's own."""

from tif.data.samples import Benchmark
from tif.schema import Config, Eval
from tif.schema_evaluate import BENCHMARKS as NAMES
from tif.schema_evaluate import LM_EVAL

TOFU_SPLIT = "forget10"  # where none is named


def further(cfg: Config) -> dict[str, Benchmark]:
    """The benchmarks of `eval.benchmarks`, read.

    Raises:
        ValueError: One line naming the key, see the readers.
    """
    found = {}
    for name, path in cfg.eval.benchmarks.items():
        if name in NAMES:
            try:
                split = cfg.data.split if cfg.data.benchmark == "tofu" else None
                found[name] = sets(name, str(path), split or TOFU_SPLIT)
            except ValueError as error:
                raise ValueError(str(error).replace("data.path", f"eval.benchmarks.{name}", 1)) from None
    return found


def sets(name: str, path: str, split: str) -> Benchmark:
    """The benchmark at `path`, for its evaluation sets.

    Args:
        name: one of NAMES.
        path: hub name, folder or file, see the readers.
        split: TOFU's forget split.

    Raises:
        ValueError: See the readers.
    """
    if name == "tofu":
        from tif.data.tofu import tofu

        return tofu(path, split)
    if name == "text":
        from tif.data.text import text

        return text(path)
    from tif.data.muse import muse

    return muse(path, train=False)


def tasks_of(cfg: Eval) -> list[str]:
    """The tasks of lm-eval among `eval.benchmarks`."""
    return [task.strip() for task in str(cfg.benchmarks.get(LM_EVAL, "")).split(",") if task.strip()]


def problems(cfg: Eval) -> list[str]:
    """What is wrong with `eval.benchmarks` as far as the words tell, one line each."""
    known = (*NAMES, LM_EVAL)
    return [f"eval.benchmarks.{name}: want {', '.join(known)}" for name in cfg.benchmarks if name not in known] + [
        f"eval.benchmarks.{name}: want a hub name or a path, got {path!r}"
        for name, path in cfg.benchmarks.items()
        if not isinstance(path, str) or not path
    ]
