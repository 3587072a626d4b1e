"""`tif.evaluate`: `tif evaluate` from Python, the same checks, numbers and files."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tif.api import settings as words
from tif.api.evaluation import Evaluation
from tif.api.run import Run
from tif.api.samples import Samples, list_files, write_files
from tif.config import load as config
from tif.config.command_keys import Evaluate
from tif.config.errors import ConfigError
from tif.records.types import RecordSet


def evaluate(
    model: str | Path | Run,
    forget: Samples | None = None,
    retain: Samples | None = None,
    settings: Sequence[str] | str = (),
    **keys: Any,
) -> Evaluation:
    """Evaluate a model on samples of your own or on a benchmark; return its numbers.

    That is `tif evaluate`. Records are stored in `out` ("evaluations"); what is there
    already by the same rules is read, not made again.

    Args:
        model: Hugging Face folder or hub name, name of a preset, or a run, whose unlearned model
            is meant.
        forget, retain: samples, in all forms that `tif.unlearn` takes. None = the benchmarks that
            `eval.benchmarks` names.
        settings: further words of the command line.
        keys: keys of `tif evaluate`, as `eval={"benchmarks": ["tofu"]}`.

    Raises:
        ConfigError: With one line for each problem, before weights load.
    """
    from tif.evaluation.model_numbers import evaluate_model
    from tif.records.files import read_evaluation

    sets = {"forget": forget, "retain": retain}
    sets = {name: samples for name, samples in sets.items() if samples is not None}
    chosen: dict[str, Any] = {}
    if isinstance(model, Run):  # its prompt format too
        chosen = model.settings.data.prompts.describe()
    if sets:
        chosen |= {"eval.benchmarks": ["text"], "eval.text.path": "(the samples)"}
    overrides = words.read_words(settings) + words.list_words(keys)
    all_words = words.describe_model(model) + words.list_words(chosen) + overrides
    files, cfg = words.call_all(partial(list_files, sets), partial(_read, all_words))
    if files:
        cfg.eval.text.path = str(write_files(files, Path(cfg.out) / "data"))
    results = evaluate_model(cfg)
    records: dict[str, RecordSet] = {}
    for name, numbers in results["benchmarks"].items():
        prefix = f"{name}/" if len(results["benchmarks"]) > 1 else ""
        if "folder" in numbers:
            stored = read_evaluation(numbers["folder"]).sets
            records |= {prefix + set_name: stored[set_name] for set_name in stored}
    return Evaluation(str(results["model"]), results["benchmarks"], records)


def _read(all_words: Sequence[str]) -> Evaluate:
    cfg = config.read(Evaluate, all_words)
    if cfg.records:
        wanted = "tif.Run(FOLDER).evaluation() reads a run's records"
        raise ConfigError(f"records: want null; {wanted}")
    return cfg
