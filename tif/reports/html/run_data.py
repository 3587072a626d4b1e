"""Everything that a report shows of one run, read from its folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tif.config import load
from tif.config.help import list_method_files
from tif.data.benchmarks import describe_data
from tif.metrics import tofu
from tif.metrics.failures import find_failures, find_nothing_to_forget
from tif.metrics.targeted import FORGET_SETS
from tif.records import run_folder
from tif.records.types import Evaluation
from tif.reports.html.charts import name_epoch
from tif.reports.html.samples import RETAIN, SampleBrowser
from tif.reports.summary import RunNumbers, read_run_numbers
from tif.utils.terminal import track


@dataclasses.dataclass(kw_only=True)
class RunData(RunNumbers):
    """A run."""

    folder: Path
    steps: list[dict[str, Any]]  # rows of its optimizer steps
    # config and env: content of config.yaml and env.json
    config: dict[str, Any]
    env: dict[str, Any]
    browser: SampleBrowser
    # truth ratios of the forget set by epoch; key "retain" = the retain model's
    ratios: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)  # questions of each set
    unwanted_share: float | None = None  # of the forget answers' tokens; None = not known
    protocol: str = ""  # name of the evaluation's rules

    @property
    def best_epoch(self) -> int | None:
        """Return the epoch that the key `eval.best` chose; None where nothing was chosen."""
        return self.best.epoch if self.best else None

    @property
    def best_by(self) -> str:
        """Return the value of `eval.best`."""
        return str(self.section("eval").get("best", "score"))

    def section(self, name: str) -> dict[str, Any]:
        """Return a section of the configuration; empty where there is none."""
        section = self.config.get(name)
        return section if isinstance(section, dict) else {}

    @property
    def method(self) -> str:
        """Return the title of the method: the first words of its file in configs/loss."""
        loss = self.section("loss")
        name = str(loss.get("forget", ""))
        files = ["task_vector"] if name == "ce" and loss.get("task_vector") else []
        files += sorted(list_method_files().get(name, ()), key=len)  # the plain method first
        if not files:
            return name or "The run"
        text = (load.own_configs() / "loss" / f"{files[0]}.yaml").read_text(encoding="utf-8")
        return text.partition(":")[0].lstrip("# ")

    @property
    def data(self) -> str:
        """Return the benchmark's title with its split."""
        data = self.section("data")
        return describe_data(str(data.get("benchmark", "")), data.get("split"))

    @property
    def model(self) -> str:
        """Return the model that the run, or the stage that made its target, started from."""
        model = self.section("model")
        name, stages = model.get("base") or model.get("path"), self.section("stages")
        if name is None or name in stages:
            return f"a new {(model.get('init') or {}).get('model_type', 'Llama')}"
        return Path(name).name if Path(str(name)).is_absolute() else str(name)

    def failures(self) -> list[tuple[str, str, list[int]]]:
        """Return the failures by name, each with a line in words and the epochs that showed it."""
        epochs = int(self.section("trainer").get("max_epochs") or 1)
        shown: dict[str, tuple[str, list[int]]] = {}
        for row in self.rows:
            failures = find_failures(self.rows[0], row, row["epoch"] / epochs)
            if row["epoch"] == 0:
                failures += find_nothing_to_forget(row)
            lines = {failure.name: failure.line for failure in failures}
            for key, value in row.items():
                if not key.startswith("failure/"):
                    continue
                name = key.removeprefix("failure/")
                earlier = shown.get(name, ("", []))[1]
                line = lines.get(name, f"the value is {value:.3g}")
                shown[name] = (line, [*earlier, row["epoch"]])
        return [(name, line, at) for name, (line, at) in shown.items()]


def read_run(folder: Path, summary: Mapping[str, Any] | None = None) -> RunData:
    """Return the data of a run's report.

    Args:
        folder: of the run.
        summary: content of its summary.json, where that is not written yet.

    Raises:
        DamagedFile: If a file of the folder cannot be read; one line with what to delete.
    """
    run = RunData(
        **vars(read_run_numbers(folder, summary)),
        folder=folder,
        steps=run_folder.training_rows(folder),
        config=run_folder.read_config(folder),
        env=run_folder.read_environment(folder),
        browser=SampleBrowser(run_folder.read_tokens(folder)),
    )
    retain = run_folder.read_retain_records(folder)
    for row in track(run.rows, "reading the records"):
        epoch = row["epoch"]
        evaluation = run_folder.read_records(folder, epoch)
        if evaluation is None:
            continue
        _add_evaluation(run, str(epoch), evaluation)
        run.browser.add(str(epoch), name_epoch(epoch), evaluation)
    if retain is not None and run.browser.models:
        _add_evaluation(run, RETAIN, retain)
        run.browser.add(RETAIN, "retain model", retain)
    run.unwanted_share = _unwanted_share(run)
    return run


def _add_evaluation(run: RunData, key: str, evaluation: Evaluation) -> None:
    """Add what is computed from an evaluation's records to the run."""
    run.protocol = run.protocol or str(evaluation.protocol.get("name", ""))
    for name, records in evaluation.sets.items():
        run.counts.setdefault(name, len(records.records))
    if "forget" in evaluation.sets:
        try:
            run.ratios[key] = [float(ratio) for ratio in tofu.forget_ratios(evaluation)]
        except ValueError:  # a benchmark without wrong answers
            return


def _unwanted_share(run: RunData) -> float | None:
    """Return which share of the forget answers' scored tokens is unwanted."""
    masks: list[bool] = []
    for name in FORGET_SETS[:1] if "forget" in run.browser.tokens else FORGET_SETS:
        for tokens in run.browser.tokens.get(name, {}).values():
            masks += tokens.uw or ()
    return sum(masks) / len(masks) if masks else None
