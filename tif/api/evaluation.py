"""`Evaluation`, a model's numbers with the records behind them, and `tif.evaluate`, which makes it.

`tif.evaluate` is `tif evaluate` from Python: the same checks, numbers and files.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tif.api import settings as words
from tif.api.notebook import render_table
from tif.api.samples import Samples, list_files, write_files
from tif.config import load as config
from tif.config.command_keys import Evaluate
from tif.config.errors import ConfigError
from tif.records.types import RecordSet
from tif.reports.columns import format_interval, format_metric
from tif.reports.evaluation import list_rows

if TYPE_CHECKING:
    from tif.api.run import Run


class Evaluation:
    """What a model scored: numbers with intervals, and the records they were made from.

    Attributes:
        title: whose evaluation it is.
        metrics: values by stable name ("forget/probability"); None = there is none. With several
            benchmarks, names start with that of theirs ("tofu/forget/quality").
        intervals: 95 % intervals over authors, documents or questions, by the same names.
        records: what was asked and said, a `RecordSet` for each set, by its name.
    """

    def __init__(
        self, title: str, benchmarks: Mapping[str, Mapping[str, Any]],
        records: Mapping[str, RecordSet],
    ) -> None:  # fmt: skip
        """Take the numbers of each benchmark, by its name, as `tif.metrics.results` gives them."""
        self.title, self.records = title, dict(records)
        self.metrics: dict[str, float | None] = {}
        self.intervals: dict[str, Sequence[float] | None] = {}
        self._titles: dict[str, str] = {}
        for benchmark, numbers in benchmarks.items():
            prefix = f"{benchmark}/" if len(benchmarks) > 1 else ""
            for row in list_rows(numbers):
                name = prefix + row.name
                self.metrics[name], self.intervals[name] = row.value, row.interval
                section = row.section.partition(",")[0]
                self._titles[name] = f"{prefix}{section} {row.title}".strip()

    def __repr__(self) -> str:
        count = sum(value is not None for value in self.metrics.values())
        return f"Evaluation({self.title!r}, {count} numbers)"

    def _repr_html_(self) -> str:
        rows = []
        for name, value in self.metrics.items():
            if value is not None:
                interval = self.intervals.get(name)
                shown = format_interval(interval, name) if interval else "-"
                rows.append([self._titles.get(name, name), format_metric(name, value), shown])
        return render_table(["metric", "value", "95 % interval"], rows, self.title)


def evaluate(
    model: "str | Path | Run",
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
    run: Any = model
    if hasattr(run, "folder"):  # its prompt format too
        chosen = run.settings.data.prompts.describe()
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
