"""Evaluation sets by the benchmark's name: what `eval.benchmarks` names besides the run's own."""

from tif.config.evaluate_command import BENCHMARKS as NAMES
from tif.config.evaluate_command import LM_EVAL
from tif.config.schema import Config, Data, Eval
from tif.data.samples import Benchmark, Sample

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


def read_benchmark(cfg: Data) -> Benchmark:
    """The benchmark that `cfg` names.

    Raises:
        ValueError: One line naming the key or file, see the readers.
    """
    if cfg.benchmark == "tofu":
        from tif.data.tofu import tofu

        return tofu(str(cfg.path), cfg.split or TOFU_SPLIT, cfg.max_retain)
    if cfg.benchmark == "muse":
        from tif.data.muse import muse

        return muse(str(cfg.path), cfg.split or "forget")
    if cfg.benchmark == "text":
        from tif.data.text import text

        return text(str(cfg.path))
    from tif.data.fictitious import fictitious

    own = cfg.fictitious
    return fictitious(own.authors, own.questions_per_author, own.forget_share, own.seed)


def training_samples(benchmark: Benchmark, train: str) -> tuple[Sample, ...]:
    """What `data.train` trains on: the forget set, or what a retain or target model reads."""
    if train == "forget":
        return benchmark.forget
    return benchmark.background + benchmark.retain + (benchmark.forget if train == "full" else ())


def texts(benchmark: Benchmark, encoder_prompt: str) -> list[str]:
    """Everything a tokenizer made for this benchmark should have seen."""
    found = []
    for s in (*benchmark.background, *benchmark.retain, *benchmark.forget):
        for answer in (s.answer, s.paraphrased_answer, *s.perturbed_answers):
            if answer is not None:
                found.append(f"{encoder_prompt.replace('{prompt}', s.prompt)} {answer}")
    return found
