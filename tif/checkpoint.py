"""Any Hugging Face causal LM to recorded evaluations, kept on disk by model, rules and data."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

import tif
from tif import ability, evaluation, gibberish, gradients, models, records, runs, scoring, tasks
from tif.aggregates import Extras, Rules, numbers
from tif.config import ConfigError
from tif.data.encode import Encoder
from tif.data.samples import Benchmark, fingerprint
from tif.files import write_text
from tif.metrics import muse as muse_metrics
from tif.metrics import tofu as tofu_metrics
from tif.schema import Model
from tif.schema_evaluate import Evaluate
from tif.terminal import console

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NOT_WEIGHTS = ("base", "init", "reference", "gradient_checkpointing", "trust_remote_code")  # of section model


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model that is loaded when something is asked of it that is not on disk.

    Attributes:
        cfg: section `model`, with its path.
        settings: the command's other keys.
        setting: which key the path came from.
        family: as transformers calls it.
        device: where it runs.
    """

    cfg: Model
    settings: Evaluate
    setting: str
    family: str
    device: torch.device

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Of the model's own tokenizer."""
        return Encoder(models.load_tokenizer(self.cfg, ()), self.settings.template)

    @functools.cached_property
    def config(self) -> Any:
        """The model's config.json."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(
            Path(str(self.cfg.path)).expanduser(), trust_remote_code=self.cfg.trust_remote_code
        ) if Path(str(self.cfg.path)).expanduser().is_dir() else AutoConfig.from_pretrained(
            str(self.cfg.path), trust_remote_code=self.cfg.trust_remote_code
        )  # fmt: skip

    @functools.cached_property
    def folder(self) -> Path:
        """Where its evaluations are: <out>/<name>-<hash of its weights and how they are loaded>."""
        path = Path(str(self.cfg.path))
        name = path.parent.name if path.name == "model" and path.parent.name else path.name
        weights = runs.weights_print(self.cfg.path) or [self.cfg.path, getattr(self.config, "_commit_hash", None)]
        keys = {k: v for k, v in dataclasses.asdict(self.cfg).items() if k not in (*NOT_WEIGHTS, "path")}
        return Path(self.settings.out) / f"{name}-{runs.digest([tif.__version__, weights, keys])}"

    @functools.cached_property
    def model(self) -> "PreTrainedModel":
        """Loaded now."""
        if main_process():
            console.print(f"loading {self.cfg.path}", markup=False, soft_wrap=True)
        return models.load_policy(self.cfg, self.encoder.tokenizer, 0).to(self.device)  # type: ignore[arg-type]

    @functools.cached_property
    def batching(self) -> str:
        """Packed or padded, see scoring.best_batching."""
        return scoring.best_batching(self.settings.batching, self.model)

    def evaluation(self, name: str, benchmark: Benchmark) -> tuple[records.Evaluation, Path]:
        """Its records of a benchmark's sets and their folder; made now unless they are there."""
        asking, own = self.settings.eval, benchmark.tasks
        used = evaluation.cut(benchmark.sets, asking, own)
        context = getattr(self.config, "max_position_embeddings", None)
        rules = evaluation.described(asking, self.encoder, own, context)
        data = {key: fingerprint(samples) for key, samples in used.items()}
        folder = self.folder / f"{name}-{runs.digest([rules, data])}"
        if agreed((folder / records.AGGREGATES).exists()):
            return records.read(folder), folder
        found = evaluation.evaluate(
            self.model, self.encoder, benchmark.sets, asking, self.batching, str(self.cfg.path), tasks=own
        )
        if main_process():
            metrics = muse_metrics if any(key in found.sets for key in muse_metrics.SETS) else tofu_metrics
            records.write(folder, found, metrics.aggregate(found))
        return found, folder


def evaluate(cfg: Evaluate) -> dict[str, Any]:
    """Evaluate the model on all benchmarks: the content of `--json`.

    Raises:
        ConfigError: Before weights load, with one line for each problem.
    """
    main, others, benchmarks, retain = _checked(cfg)
    names, lm_tasks = cfg.asked()
    found: dict[str, Any] = {}
    rules = Rules(cfg.draws, cfg.seed, cfg.allow_mismatch)
    for name in names:
        ours, folder = main.evaluation(name, benchmarks[name])
        if "retain_model" in others:
            retain = others["retain_model"].evaluation(name, benchmarks[name])[0]
        extras = _extras(main, others.get("membership.reference"), name, benchmarks[name], ours, folder)
        where = f"retain_model: {cfg.retain_model}" if cfg.retain_model else f"retain_records: {cfg.retain_records}"
        found[name] = numbers(ours, retain, rules, extras, str(folder), where) | {"folder": str(folder)}
    if lm_tasks:
        found["lm-eval"] = _general_ability(main, lm_tasks)
    return {"model": str(cfg.model.path), "benchmarks": found}


def _checked(
    cfg: Evaluate,
) -> tuple[Checkpoint, dict[str, Checkpoint], dict[str, Benchmark], records.Evaluation | None]:
    """Everything that can be wrong, before weights load."""
    problems: list[str] = []
    device = _device(cfg.device)
    found: dict[str, Checkpoint] = {}
    paths = {"model.path": cfg.model.path, "retain_model": cfg.retain_model, "membership.reference": cfg.membership.reference}
    for setting, path in paths.items():
        if path is not None:
            own = dataclasses.replace(cfg.model, path=path)
            try:
                found[setting] = Checkpoint(own, cfg, setting, models.check(own), device)
                _ = found[setting].encoder
            except (ConfigError, OSError, ValueError) as error:
                problems += [line.replace("model.path", setting, 1) for line in str(error).splitlines()]
    names, lm_tasks = cfg.asked()
    benchmarks: dict[str, Benchmark] = {}
    for name in names:
        try:
            benchmarks[name] = read(cfg, name)
        except ValueError as error:
            problems += [line.replace("data.", _KEYS[name] + ".", 1) for line in str(error).splitlines()]
    if lm_tasks:
        try:
            ability.check(lm_tasks, cfg.lm_eval.folder)
        except ValueError as error:
            problems.append(str(error))
    retain = None
    if cfg.retain_records:
        try:
            retain = records.read(cfg.retain_records)
        except (OSError, ValueError) as error:
            problems.append(f"retain_records: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    main = found.pop("model.path")
    return main, found, benchmarks, retain


_KEYS = {"tofu": "tofu", "muse-news": "muse", "muse-books": "muse", "text": "text"}


def read(cfg: Evaluate, name: str) -> Benchmark:
    """The evaluation sets of a benchmark.

    Raises:
        ValueError: See the readers.
    """
    if name == "tofu":
        from tif.data.tofu import tofu

        return tofu(cfg.tofu.path, cfg.tofu.split)
    if name == "text":
        from tif.data.text import text

        return text(str(cfg.text), cfg.template)
    from tif.data.muse import muse

    return muse(cfg.muse.news if name == "muse-news" else cfg.muse.books, train=False)


def _extras(
    main: Checkpoint,
    reference: Checkpoint | None,
    name: str,
    benchmark: Benchmark,
    ours: records.Evaluation,
    folder: Path,
) -> Extras:
    """What is computed on request, from disk where it is there."""
    cfg, compared = main.settings, {k: v for k, v in benchmark.sets.items() if k in muse_metrics.COMPARED}
    other, norms, clean = None, {}, {}
    if reference and compared:
        part = dataclasses.replace(benchmark, sets=compared)
        other = reference.evaluation(f"{name}-membership", part)[0]
    if cfg.membership.gradient_norm and compared:
        norms = _kept(folder / "gradient_norms.json", lambda: _gradient_norms(main, benchmark, compared))
    if cfg.fluency.classifier:
        path, texts = cfg.fluency.classifier, {
            key: [r.generated for r in own.records] for key, own in ours.sets.items()
        }
        spoken = {key: own for key, own in texts.items() if own and None not in own}
        clean = _kept(
            folder / f"clean-{runs.digest([path, runs.weights_print(path)])}.json",
            lambda: {
                key: gibberish.clean_probabilities([text or "" for text in own], path, main.device)
                for key, own in spoken.items()
            },
        )
    return Extras(other, norms, clean)


def _gradient_norms(main: Checkpoint, benchmark: Benchmark, compared: dict[str, Any]) -> dict[str, list[float]]:
    context = getattr(main.config, "max_position_embeddings", None)
    used = evaluation.cut(compared, main.settings.eval, benchmark.tasks)
    return {
        key: gradients.gradient_norms(
            main.model,
            [one.texts[0] for one in tasks.ask(main.encoder, samples, benchmark.tasks[key], context)],
            main.encoder.pad_id,
        )
        for key, samples in used.items()
    }


def _general_ability(main: Checkpoint, names: list[str]) -> dict[str, Any]:
    own = main.settings.lm_eval
    path = main.folder / f"lm-eval-{runs.digest([names, own.folder, own.limit])}.json"
    found = _kept(
        path,
        lambda: ability.run(main.model, main.encoder.tokenizer, names, own.folder, own.limit, own.batch_size),
    )
    around = {key: None if error is None else (value - 1.96 * error, value + 1.96 * error) for key, (value, error) in found.items()}
    return {
        "metrics": {key: value for key, (value, _) in found.items()},
        "intervals": around,
        "protocol": {"name": "lm-eval", "tasks": names, "limit": own.limit},
        "file": str(path),
    }


def _kept(path: Path, make: Callable[[], Any]) -> Any:
    """The JSON at `path`; made now unless it is there."""
    if agreed(path.exists()):
        return json.loads(path.read_text(encoding="utf-8"))
    found = make()
    if main_process():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found))
    return found


def _device(asked: str) -> torch.device:
    if asked != "auto":
        return torch.device(asked)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


def main_process() -> bool:
    """Whether this process prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def agreed(value: bool) -> bool:
    """The main process's value, in all of them."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    both = [value]
    dist.broadcast_object_list(both, src=0)
    return both[0]
