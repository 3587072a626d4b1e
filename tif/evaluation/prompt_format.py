"""How a command asks its questions: the format that `auto` means, and the first sample in it.

The first sample is what `--print` shows below the configuration; no weights load, and a tokenizer
only for a chat.
"""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import TypeVar

from tif.config import load as config
from tif.config.command_keys import Evaluate
from tif.config.data import PromptKeys
from tif.config.errors import ConfigError, one_line
from tif.config.schema import Config, Model
from tif.data.benchmarks import read_benchmark, read_evaluation_sets
from tif.data.samples import Sample
from tif.data.templates import read_template, resolve_prompts
from tif.utils.hub import is_download_missing

C = TypeVar("C", bound=Config)
LONGEST = 2000  # characters of a text that are shown


def resolve_template(cfg: C) -> C:
    """Return the configuration with what `data.template=auto` means for its first model.

    A model that cannot be read has no chat template here; the checks of the model say why.
    """
    if not cfg.data.prompts.is_auto:
        return cfg
    tokenizer = None
    with contextlib.suppress(OSError, ValueError):
        model = find_first_model(cfg)
        if model.path is not None:
            from tif.models.load import load_tokenizer  # imports torch

            tokenizer = load_tokenizer(model, ())
    template = resolve_prompts(cfg.data.prompts, tokenizer).template
    return dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, template=template))


def use_template_of_run(cfg: Evaluate) -> Evaluate:
    """Return the keys with the prompt format of the run whose model is evaluated, if it is auto."""
    file = Path(str(cfg.model.path)).expanduser().parent / "config.yaml"
    if not cfg.prompts.is_auto or cfg.records or not file.is_file():
        return cfg
    stored = config.read_stored(file).data
    return dataclasses.replace(cfg, template=stored.template, chat=stored.chat)


def find_first_model(cfg: Config) -> Model:
    """Return section `model` of the run, or of the first of the stages that lead to it."""
    while cfg.model.path in cfg.stages:
        name = str(cfg.model.path)
        pinned = (cfg.stages[name] or {}).get("path")
        cfg = config.stage(cfg, name)
        if pinned is not None:
            return dataclasses.replace(cfg.model, path=str(Path(pinned).expanduser() / "model"))
    return cfg.model


def describe_run(cfg: Config) -> list[str]:
    """Return as comments how a run's first forget sample is read, or what is to be downloaded.

    Raises:
        ConfigError: If it cannot be read.
    """
    try:
        sample = read_benchmark(cfg.data).forget[0]
        return describe_sample(sample, cfg.data.prompts, find_first_model(cfg))
    except (OSError, ValueError) as error:
        return [comment_on_missing_download("first sample", error)]


def comment_on_missing_download(subject: str, error: Exception) -> str:
    """Return the comment that files of the hub are not here yet; else raise ConfigError."""
    if not is_download_missing(error):
        raise ConfigError(str(error)) from None
    return f"# {subject}: not known yet: {one_line(error)}"


def describe_evaluation(settings: Evaluate) -> list[str]:
    """Return the same for the first sample of each benchmark that has prompts of this format.

    Raises:
        ConfigError: As `describe_run`.
    """
    lines, settings = [], use_template_of_run(settings)
    for name in settings.eval.data_benchmarks():
        try:
            benchmark = read_evaluation_sets(name, settings.eval)
            for set_name, samples in benchmark.sets.items():
                task = benchmark.tasks.get(set_name)
                if samples and (task is None or task.template is None):
                    lines += describe_sample(samples[0], settings.prompts, settings.model)
                    break
        except (OSError, ValueError) as error:
            lines.append(comment_on_missing_download(f"first sample of {name}", error))
    return lines


def describe_sample(sample: Sample, prompts: PromptKeys, model: Model) -> list[str]:
    """Return as comments the texts that a model reads one after the other, quoted as in JSON.

    Raises:
        ValueError: If the model's tokenizer cannot be loaded, or has no chat template that serves.
    """
    tokenizer = None
    if prompts.is_chat or (prompts.is_auto and model.path is not None):
        from tif.models.load import load_tokenizer

        tokenizer = load_tokenizer(model, ())
    template = read_template(prompts, tokenizer)
    texts = {"answer": sample.answer}
    if sample.prompt:
        texts = {"prompt": template.render(sample.prompt), "answer": template.blank + sample.answer}
    if sample.prompt and template.chat:
        texts["end"] = template.chat.end
    lines = [f"# The first sample as the model reads it ({sample.id}):"]
    for name, text in texts.items():
        shown = json.dumps(text[:LONGEST], ensure_ascii=False)
        more = f" and {len(text) - LONGEST:,} more characters" if len(text) > LONGEST else ""
        lines.append(f"#   {name + ':':7} {shown}{more}")
    return lines
