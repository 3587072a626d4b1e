"""Read a benchmark by its name, and choose what is trained on and evaluated.

Called by `training`, `evaluation` and the commands; the readers are the other files of this room.
"""

import fnmatch

from tif.config.data import MUSE, Data
from tif.config.evaluation import BENCHMARKS, EvalRules
from tif.data.samples import Benchmark, Sample
from tif.data.templates import Prompts, read_template

DEFAULT_TOFU_SPLIT = "forget10"


def read_benchmark(data: Data) -> Benchmark:
    """Return the benchmark that section `data` names.

    Raises:
        ValueError: One line that names the key or file, see the readers.
    """
    # Imported here: a reader is needed only where its benchmark is.
    if data.benchmark == "tofu":
        from tif.data.tofu import read_tofu

        split = data.split or DEFAULT_TOFU_SPLIT
        return read_tofu(str(data.path), split, data.max_retain, data.holdout)
    if data.benchmark in MUSE:
        from tif.data.muse import read_muse

        return read_muse(str(data.path), data.split or "forget")
    if data.benchmark == "lume":
        from tif.data.lume import read_lume

        return read_lume(str(data.path), data.split)
    if data.benchmark == "text":
        from tif.data.text import read_texts

        return read_texts(str(data.path), data.split_text)
    from tif.data.fictitious import generate_fictitious

    return generate_fictitious(data.fictitious)


def read_evaluation_sets(name: str, rules: EvalRules) -> Benchmark:
    """Return a benchmark of `eval.benchmarks`, read for its evaluation sets.

    A ValueError names the key or file in one line, see the readers.
    """
    section = BENCHMARKS[name]
    path = getattr(rules, section).path
    try:
        if name == "tofu":
            from tif.data.tofu import read_tofu

            return read_tofu(path, rules.tofu.split, holdout=rules.tofu.holdout)
        if name == "lume":
            from tif.data.lume import read_lume

            return read_lume(path, rules.lume.split)
        if name == "text":
            from tif.data.text import read_texts

            return read_texts(path)
        from tif.data.muse import read_muse

        return read_muse(path, with_training=False)
    except ValueError as error:
        message = str(error).replace("data.path", f"eval.{section}.path", 1)
        message = message.replace("data.split", f"eval.{section}.split", 1)
        message = message.replace("data.holdout", f"eval.{section}.holdout", 1)
        raise ValueError(message) from None


def select_training_samples(
    benchmark: Benchmark, train: str, request: str | None = None
) -> tuple[Sample, ...]:
    """Return what is trained on by key `data.train`.

    "forget" is unlearning: of the forget set, or of its samples whose ids match `request`, a
    pattern as of file names. "retain" makes a retain model, "full" a target model.
    """
    if train == "forget":
        chosen = request or "*"
        return tuple(s for s in benchmark.forget if fnmatch.fnmatchcase(s.id, chosen))
    samples = benchmark.background + benchmark.retain
    return samples + benchmark.forget if train == "full" else samples


def list_tokenizer_texts(benchmark: Benchmark, prompts: Prompts) -> list[str]:
    """Return the texts, prompts in their template, that a tokenizer for this data is trained on."""
    texts, prompt_format = [], read_template(prompts)
    for sample in (*benchmark.background, *benchmark.retain, *benchmark.forget):
        prompt = prompt_format.text.replace("{prompt}", sample.prompt) + prompt_format.blank
        for answer in (sample.answer, sample.paraphrased_answer, *sample.perturbed_answers):
            if answer is not None:
                texts.append(prompt + answer)
    return texts
