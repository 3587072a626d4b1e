"""Benchmarks by name: the data of a run (`data.benchmark`) and the sets of an evaluation (`eval.benchmarks`)."""

from tif.config.data import MUSE, Data
from tif.config.evaluation import BENCHMARKS, EvalRules
from tif.data.samples import Benchmark, Sample

TOFU_SPLIT = "forget10"  # where none is named


def read_evaluation_sets(name: str, rules: EvalRules) -> Benchmark:
    """Return the benchmark `name` of `eval.benchmarks`, read for its evaluation sets.

    Args:
        name: one of tif.config.evaluation.BENCHMARKS.
        rules: section `eval`, which says where the benchmark is.

    Raises:
        ValueError: One line naming the key or file, see the readers.
    """
    place = getattr(rules, BENCHMARKS[name])
    try:
        if name == "tofu":
            from tif.data.tofu import tofu

            return tofu(place.path, rules.tofu.split)
        if name == "text":
            from tif.data.text import text

            return text(place.path)
        from tif.data.muse import muse

        return muse(place.path, train=False)
    except ValueError as error:
        raise ValueError(str(error).replace("data.path", f"eval.{BENCHMARKS[name]}.path", 1)) from None


def read_benchmark(cfg: Data) -> Benchmark:
    """The benchmark that `cfg` names.

    Raises:
        ValueError: One line naming the key or file, see the readers.
    """
    if cfg.benchmark == "tofu":
        from tif.data.tofu import tofu

        return tofu(str(cfg.path), cfg.split or TOFU_SPLIT, cfg.max_retain)
    if cfg.benchmark in MUSE:
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
