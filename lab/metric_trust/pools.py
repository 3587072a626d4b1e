"""Make pools of tiny models whose knowledge of the forget set is known; store their metrics.

Called by study.py, a model at a time, in processes of its own. A base model reads
other authors' questions. From it start

- models that know the forget set: finetuned on the retain set and the forget set, as it is, in
  other words, or as a biography of each author;
- models that do not: finetuned on the retain set alone, with wrong answers to the forget questions,
  or with biographies of other authors;
- unlearned models: from one that knows, by every method and at several strengths; each also after
  an epoch on the forget set, and with its weights in 4 bits.

Source: the pools of open-unlearning's meta-evaluation (arXiv 2506.12618), on invented authors.
"""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.metric_trust.settings import MetricTrust
from tif.config import load as config
from tif.config.schema import Config
from tif.data.benchmarks import read_benchmark
from tif.data.samples import Benchmark, Sample
from tif.losses import hidden_layer
from tif.records import run_folder
from tif.training import run as training
from tif.training.inputs import make_stage
from tif.training.plan import Plan
from tif.training.stages import stage_config
from tif.utils.files import read_bytes, write_text

BASE = "base"
KNOWING = ("original", "paraphrase", "biography")
IGNORANT = ("retain", "wrong", "others")
NO_WEIGHTS = ("finetune", "whp_inference")  # files of configs/loss that leave the weights, or learn


@dataclasses.dataclass(frozen=True)
class PoolModel:
    """A model of the pools.

    Attributes:
        name: of its folder.
        pool: base, knowing, ignorant or unlearned.
        form: what it reads beside the retain set; of an unlearned model, the method.
        lr: learning rate; of an unlearned model, the factor on the configuration's.
        epochs: of finetuning; 0 = as the configuration says.
    """

    name: str
    pool: str
    form: str
    lr: float
    epochs: int = 0


def list_models(settings: MetricTrust) -> list[PoolModel]:
    """Return all models of the pools; a model comes after those that it needs."""
    finetuned = []
    for pool, forms in (("knowing", KNOWING), ("ignorant", IGNORANT)):
        for form in forms:
            for lr in settings.lrs:
                for epochs in settings.epochs:
                    name = f"{pool}-{form}-{lr:g}-{epochs}"
                    finetuned.append(PoolModel(name, pool, form, lr, epochs))
    unlearned = []
    for method in settings.methods or list_methods():
        for strength in settings.strengths:
            name = f"unlearned-{method}-{strength:g}"
            unlearned.append(PoolModel(name, "unlearned", method, strength))
    return [*finetuned, *unlearned]


def list_methods() -> list[str]:
    """Return the files of configs/loss that unlearn by changing weights."""
    names = [path.stem for path in sorted((config.own_configs() / "loss").glob("*.yaml"))]
    return [name for name in names if name not in NO_WEIGHTS]


def read_config(settings: MetricTrust) -> Config:
    """Return the configuration that all models share; its runs are in `out`."""
    words = [settings.config, *settings.keys, f"run.folder={settings.out}/runs"]
    words += [f"run.seed={settings.seed}", "eval.enabled=false", "run.export=true"]
    return config.load(words)


def middle(settings: MetricTrust) -> tuple[float, int]:
    """Return learning rate and epochs of the target model and of the retain model."""
    return sorted(settings.lrs)[len(settings.lrs) // 2], max(settings.epochs)


def target_name(settings: MetricTrust) -> str:
    """Return the name of the model that the methods unlearn."""
    lr, epochs = middle(settings)
    return f"knowing-original-{lr:g}-{epochs}"


def retain_name(settings: MetricTrust) -> str:
    """Return the name of the retain model."""
    lr, epochs = middle(settings)
    return f"ignorant-retain-{lr:g}-{epochs}"


def make_base(settings: MetricTrust) -> Path:
    """Return the run folder of the base model; it is made now if it is missing.

    It reads the controls and other authors, who stand in no set; its tokenizer has seen all texts.
    """
    cfg = read_config(settings)
    benchmark = read_benchmark(cfg.data)
    everything = (*benchmark.forget, *benchmark.retain, *form_samples(benchmark, "biography"))
    reading = dataclasses.replace(benchmark, retain=_other_authors(cfg), forget=everything)
    stage = stage_config(config.stage(cfg, "target"))
    stage = dataclasses.replace(stage, data=dataclasses.replace(stage.data, train="retain"))
    return _finetune(settings, BASE, stage, reading)


def make_model(settings: MetricTrust, model: PoolModel) -> Path:
    """Return the run folder of a model; it is made now if it is missing."""
    cfg = read_config(settings)
    if model.pool == "unlearned":
        return _unlearn(settings, model)
    benchmark = read_benchmark(cfg.data)
    samples = form_samples(benchmark, model.form)
    stage = stage_config(config.stage(cfg, "target"))
    stage = dataclasses.replace(
        stage,
        data=dataclasses.replace(stage.data, train="retain"),
        model=dataclasses.replace(stage.model, path=str(model_folder(settings, BASE)), init={}),
        optimizer=dataclasses.replace(stage.optimizer, lr=model.lr),
        trainer=dataclasses.replace(stage.trainer, max_epochs=model.epochs),
    )
    reading = dataclasses.replace(benchmark, retain=(*benchmark.retain, *samples))
    return _finetune(settings, model.name, stage, reading)


def relearn(settings: MetricTrust, name: str) -> Path:
    """Return the run folder of a model after an epoch on the forget set."""
    cfg = read_config(settings)
    benchmark = read_benchmark(cfg.data)
    stage = stage_config(config.stage(cfg, "target"))
    stage = dataclasses.replace(
        stage,
        data=dataclasses.replace(stage.data, train="retain"),
        model=dataclasses.replace(stage.model, path=str(model_folder(settings, name)), init={}),
        optimizer=dataclasses.replace(
            stage.optimizer, lr=settings.relearning_lr, warmup_epochs=0
        ),
        trainer=dataclasses.replace(stage.trainer, max_epochs=1),
    )  # fmt: skip
    reading = dataclasses.replace(benchmark, retain=benchmark.forget, background=())
    return _finetune(settings, f"{name}-relearned", stage, reading)


def form_samples(benchmark: Benchmark, form: str) -> tuple[Sample, ...]:
    """Return the samples that a pool's models learn beside the retain set."""
    forget = benchmark.forget
    if form == "original":
        return forget
    if form == "retain":
        return ()
    if form == "paraphrase":
        return tuple(_ask_otherwise(sample) for sample in forget)
    if form == "wrong":
        return tuple(_reword(sample, "wrong", sample.perturbed_answers[0]) for sample in forget)
    return write_biographies(forget if form == "biography" else benchmark.holdout)


def write_biographies(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return a document for each author: the author's answers, one after the other."""
    by_author: dict[str, list[str]] = {}
    for sample in samples:
        by_author.setdefault(sample.id.rpartition("/")[0], []).append(sample.answer)
    return tuple(
        Sample(f"{author}/biography", "", " ".join(answers))
        for author, answers in by_author.items()
    )


def _ask_otherwise(sample: Sample) -> Sample:
    answer = sample.paraphrased_answer or sample.answer
    reworded = _reword(sample, "paraphrase", answer)
    return dataclasses.replace(reworded, prompt=sample.paraphrased_prompt or sample.prompt)


def _reword(sample: Sample, form: str, answer: str) -> Sample:
    return Sample(f"{sample.id}/{form}", sample.prompt, answer)


def _other_authors(cfg: Config) -> tuple[Sample, ...]:
    """Return questions about nearly as many other authors, who are in no set."""
    benchmark = read_benchmark(cfg.data)
    more = dataclasses.replace(cfg.data.fictitious, authors=2 * cfg.data.fictitious.authors)
    others = read_benchmark(dataclasses.replace(cfg.data, fictitious=more))
    known = {s.id for s in (*benchmark.forget, *benchmark.retain, *benchmark.holdout)}
    return tuple(s for s in (*others.retain, *others.forget) if s.id not in known)


def model_folder(settings: MetricTrust, name: str) -> Path:
    """Return where a model's weights are."""
    return Path(settings.out) / "pools" / name / "model"


def _finetune(
    settings: MetricTrust, name: str, cfg: Config, benchmark: Benchmark
) -> Path:
    folder = Path(settings.out) / "pools"
    run = dataclasses.replace(cfg.run, folder=str(folder), name=name)
    cfg = dataclasses.replace(cfg, run=run)
    return make_stage(Plan(cfg, benchmark, stage=name))


def _unlearn(settings: MetricTrust, model: PoolModel) -> Path:
    """Return the run folder of a model that a method unlearned from the target model."""
    folder = Path(settings.out) / "pools" / model.name
    if run_folder.is_finished(folder):
        return folder
    return training.run(config.load(list_words(settings, model)))


def list_words(settings: MetricTrust, model: PoolModel) -> list[str]:
    """Return the words of `tif fit` that make an unlearned model."""
    folder, base = Path(settings.out) / "pools", read_config(settings)
    words = [
        settings.config, f"loss/{model.form}.yaml", *settings.keys,
        f"run.folder={folder}", f"run.name={model.name}", f"run.seed={settings.seed}",
        f"model.path={model_folder(settings, target_name(settings))}", "run.export=true",
        "eval.enabled=false", "eval.retain_records=null", "run.keep_checkpoints=0",
        f"optimizer.lr={base.optimizer.lr * model.lr}",
    ]  # fmt: skip
    layer = hidden_layer(config.load(words).loss)
    layers = base.model.init.get("num_hidden_layers")
    if layer is not None and layers and layer >= layers:  # as RMU's of a large model
        words.append(f"loss.rmu.layer={(layers - 1) // 2}")
    return words


def read_values(settings: MetricTrust, name: str) -> dict[str, float | None] | None:
    """Return the stored measurements of a model; None without any."""
    path = Path(settings.out) / "values" / f"{name}.json"
    if not path.is_file():
        return None
    values: dict[str, Any] = json.loads(read_bytes(path))
    return values


def write_values(settings: MetricTrust, name: str, values: dict[str, float | None]) -> None:
    """Write the measurements of a model."""
    path = Path(settings.out) / "values" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(values, indent=1) + "\n")


def drop_model(settings: MetricTrust, name: str) -> None:
    """Delete a model that nothing needs any more."""
    shutil.rmtree(Path(settings.out) / "pools" / name, ignore_errors=True)
