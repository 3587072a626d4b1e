"""`Run`: a finished run folder as an object of Python, which a notebook shows as a table."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tif.api.evaluation import Evaluation
from tif.api.notebook import Answers, Audit, Report, render_table
from tif.api.settings import list_words
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.config.schema import Config, Model
from tif.records import run_folder
from tif.reports.columns import columns_of, format_metric
from tif.reports.summary import retain_row

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Run:
    """A run folder: its numbers, models and reports. `tif.Run("runs/quickstart")` opens one.

    Attributes:
        folder: of the run.
        config: all keys of its config.yaml, as `run.config.loss.beta`. Nothing that they name is
            imported or asked.

    Args:
        folder: of the run.
        trust_remote_code: whether code that comes with its models may run; its file does not say.

    Raises:
        ConfigError: If the folder holds no run.
    """

    def __init__(self, folder: str | Path, trust_remote_code: bool = False) -> None:
        self.folder = Path(folder).expanduser()
        self._trusts_code = trust_remote_code
        if not (self.folder / run_folder.CONFIG_FILE).is_file():
            problem = f"no run folder (no {run_folder.CONFIG_FILE} in it)"
            raise ConfigError(f"{folder}: {problem}; want runs/NAME")

    @functools.cached_property
    def config(self) -> "DictConfig":
        """Return all keys of config.yaml, as `run.config.loss.beta`; nothing of it acts."""
        return config.read_yaml(self.folder / run_folder.CONFIG_FILE)

    @functools.cached_property
    def settings(self) -> Config:
        """Return the keys that count; all others have their defaults."""
        return config.read_stored(self.folder / run_folder.CONFIG_FILE)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Return a row of numbers for each evaluated epoch, in order; epoch 0 is before training.

        A row holds `epoch`, `step` and the metrics by their stable names ("forget/probability").
        """
        return run_folder.evaluation_rows(self.folder)

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Return a row for each logged optimizer step: the loss, its terms, the learning rate."""
        return run_folder.training_rows(self.folder)

    def evaluation(self, epoch: int | None = None) -> Evaluation:
        """Return the evaluation of an epoch: numbers with intervals, and the records behind them.

        None = the last one.

        Raises:
            ConfigError: If the run did not evaluate that epoch.
        """
        from tif.metrics.results import NumbersRequest, compute_results  # imports scipy

        rows = {row["epoch"]: row for row in self.metrics}
        epoch = max(rows, default=-1) if epoch is None else epoch
        name = f"{self.folder}, epoch {epoch}"
        records = run_folder.read_records(self.folder, epoch) if epoch in rows else None
        if records is None:
            known = ", ".join(map(str, rows)) or "no epoch (eval.enabled=true evaluates)"
            problem = f"has no evaluation of epoch {epoch}; want one of {known}"
            raise ConfigError(f"epoch: {self.folder} {problem}")
        retain = run_folder.read_retain_records(self.folder)
        tokens = run_folder.read_tokens(self.folder)
        request = NumbersRequest(records, retain, name, "the retain model", tokens=tokens)
        results = compute_results(request)
        evaluation = Evaluation(name, {self.settings.data.benchmark: results}, records.sets)
        # With what the run compared with the retain model.
        evaluation.metrics |= {key: value for key, value in rows[epoch].items() if "/" in key}
        return evaluation

    def model(self, best: bool = False) -> "PreTrainedModel":
        """Return the unlearned model, in evaluation mode on the run's device; loaded at each call.

        `best` = that of the epoch that `eval.best` chose, where it is not the last.

        Raises:
            ConfigError: If the run exported none (run.export=false).
        """
        is_kept = best and (self.folder / "model_best").is_dir()
        return self._load(self.folder / ("model_best" if is_kept else "model"))

    def target_model(self) -> "PreTrainedModel":
        """Return the model that the run started from, as `model` does."""
        from tif.models.pretrained import Source, find_on_disk
        from tif.training.run_models import describe_missing_stage, find_model_before

        path = find_model_before(self.settings, self.folder)
        if path is None:
            raise ConfigError(f"{self.folder}: the run names no model that it started from")
        problem = describe_missing_stage("target", path)
        if problem:
            step = f"tif fit {self.folder}/config.yaml stage={self.settings.model.path}"
            raise ConfigError(f"{problem}; want {step}")
        is_stage = self.settings.model.path in self.settings.stages
        return self._load(Path(path) if is_stage else find_on_disk(Source(path, "target_model")))

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Return the tokenizer of both models."""
        from tif.models.load import load_tokenizer

        return load_tokenizer(self._section(self.folder / "model"), ())

    def ask(self, question: str, max_new_tokens: int = 60, template: str | None = None) -> Answers:
        """Return what the target and the unlearned model answer, greedily.

        Args:
            question: put into the prompt format.
            max_new_tokens: of an answer, at most.
            template: the prompt format; None = the run's (`data.template`); "{prompt}" continues a
                text.
        """
        from tif.data.encoding import Encoder
        from tif.evaluation.generate import Decoding, generate

        prompt_keys = self.settings.data.prompts
        if template:
            prompt_keys = dataclasses.replace(prompt_keys, template=template)
        tokenizer, *models = self._models
        encoder = Encoder(tokenizer, prompt_keys)
        prompts, answers = [encoder.encode_prompt(question)], []
        for model in models:
            answers += generate(model, encoder, prompts, [max_new_tokens], Decoding(4096))
        return Answers(question, *map(str.strip, answers))

    @functools.cached_property
    def _models(self) -> tuple[Any, ...]:
        """Load once what `ask` asks: the tokenizer, the target and the unlearned model."""
        unlearned = self.model()
        return self.tokenizer(), self.target_model(), unlearned

    def report(self) -> Report:
        """Write report.html again, and its charts to figures/; a notebook shows the report."""
        from tif.audit.page_section import write_report
        from tif.reports.html.figures import FOLDER, write_figures

        path, charts = write_report(self.folder)
        write_figures(self.folder / FOLDER, charts)
        return Report(path)

    def audit(self, attacks: Sequence[str] = ("prefix",), **keys: Any) -> Audit:
        """Attack the unlearned model: can its facts be had back? See `tif audit`.

        Args:
            attacks: their names.
            keys: keys of `tif audit`, as `sample={"draws": 32}`.

        Raises:
            ConfigError: If the run has no retain model; what `retain_model=...` may name.
        """
        from tif.audit import run_attacks as audit
        from tif.audit.run import plan_run_audit
        from tif.utils.terminal import quiet_libraries

        trusts = {"model": {"trust_remote_code": True}} if self._trusts_code else {}
        words = list_words({"attacks": list(attacks), **trusts}) + list_words(keys)
        quiet_libraries()
        inputs = audit.plan_audit(plan_run_audit(self.folder, words))
        content, _ = audit.complete_audit(inputs)
        return Audit(content, inputs.subjects["unlearned"].folder)

    def _load(self, path: Path | str) -> "PreTrainedModel":
        from tif.models.load import load_policy, move_model
        from tif.utils import distributed
        from tif.utils.terminal import quiet_libraries

        quiet_libraries()
        device = distributed.select_device(self.settings.trainer.accelerator)
        policy = load_policy(self._section(path), self.tokenizer(), 0, device=device)
        return move_model(policy, device).eval().requires_grad_(False)

    def _section(self, path: Path | str) -> Model:
        """Return section `model` that reads a folder or hub name as the run does."""
        if isinstance(path, Path) and not path.is_dir():
            raise ConfigError(f"{path}: no model there; want a finished run with run.export=true")
        dtype, attention = self.settings.model.dtype, self.settings.model.attention
        code = self._trusts_code
        return Model(path=str(path), dtype=dtype, attention=attention, trust_remote_code=code)

    def __repr__(self) -> str:
        rows = self.metrics
        metrics = list(columns_of(rows))[:4] if rows else []
        shown = [f"{metric} {format_metric(metric, rows[-1].get(metric))}" for metric in metrics]
        return f"Run({str(self.folder)!r})  {', '.join(shown)}".rstrip()

    def _repr_html_(self) -> str:
        columns, retain = columns_of(self.metrics), retain_row(self.folder)
        rows = {str(row["epoch"] or "before"): row for row in self.metrics}
        if retain:
            rows["retain model"] = retain
        body = []
        for title, row in rows.items():
            body.append([title, *(format_metric(metric, row.get(metric)) for metric in columns)])
        return render_table(["epoch", *columns.values()], body, f"run {self.folder}")
