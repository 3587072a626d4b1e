"""Models that load when they are first used: those of an audit, of a chat and of `tif evaluate`.

The evaluations of the last are stored under weights, rules and data: one is found again only where
all three are the same.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tif._version import VERSION
from tif.config.command_keys import Evaluate
from tif.config.data import PromptKeys
from tif.config.errors import collect_problems, one_line
from tif.config.files import check_writable
from tif.config.schema import Model
from tif.data.encoding import Encoder
from tif.data.samples import Benchmark, fingerprint
from tif.evaluation.evaluate import describe_protocol, evaluate, find_longest_text
from tif.evaluation.questions import EvaluationSetup, list_longest_texts, select_samples
from tif.metrics import overall
from tif.models.load import load_policy, load_tokenizer, move_model, read_config
from tif.probes.check_model import check_model
from tif.probes.packed_rows import choose_batching
from tif.probes.text_length import check_length, read_context
from tif.records import files
from tif.records.types import Evaluation
from tif.utils import distributed
from tif.utils.files import read_bytes, write_text
from tif.utils.hashing import hash_json, list_model_files
from tif.utils.terminal import console

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# Role of a model -> the key of an audit or chat that names it.
KEYS = {"target": "target", "unlearned": "model.path", "retain": "retain_model"}
# Keys of section `model` that do not change the scores of a model that exists.
NOT_IN_FOLDER = ("path", "base", "init", "reference", "gradient_checkpointing", "trust_remote_code")
USER_ERRORS = (OSError, ValueError, RuntimeError)


@dataclasses.dataclass(frozen=True)
class ModelOnDemand:
    """A model on disk or of the hub; its weights load at the first use.

    Attributes:
        section: section `model`, with the model's path.
        prompts: prompt format of the questions.
        device: where it runs.
    """

    section: Model
    prompts: PromptKeys
    device: torch.device

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Return the encoder of the model's own tokenizer."""
        return Encoder(load_tokenizer(self.section, ()), self.prompts)

    @functools.cached_property
    def config(self) -> Any:
        """Return the content of the model's config.json."""
        return read_config(self.section)

    def describe(self) -> list[Any]:
        """Return what tells the model from others: its files or hub version, and how it loads."""
        path, keys = self.section.path, dataclasses.asdict(self.section)
        weights = list_model_files(path) or (path, getattr(self.config, "_commit_hash", None))
        return [weights, {key: keys[key] for key in keys if key not in NOT_IN_FOLDER}]

    @functools.cached_property
    def model(self) -> "PreTrainedModel":
        """Return the model as it is, in evaluation mode; nobody may change it."""
        return self.load()

    def load(self, **keys: Any) -> "PreTrainedModel":
        """Return a model of the caller's own; `keys` replace those of section `model`."""
        section = dataclasses.replace(self.section, **keys)
        model = load_policy(section, self.encoder.tokenizer, 0, device=self.device)
        return move_model(model, self.device).eval()

    def unload(self) -> None:
        """Free the memory of the model."""
        self.__dict__.pop("model", None)


@dataclasses.dataclass(frozen=True)
class Subject(ModelOnDemand):
    """A model under audit, or one that answers in a chat.

    Attributes:
        role: target, unlearned or retain.
        folder: of its results.
    """

    role: str
    folder: Path


def plan_subjects(
    settings: Any, problems: list[str], place: Callable[[str, str], Path]
) -> dict[str, Subject]:
    """Return the models that the keys `KEYS` of an audit or chat name, by role.

    Args:
        settings: of the audit or chat; a model whose key is null is left out.
        problems: gets what is wrong, one line each.
        place: folder of a model's results, from its role and path.
    """
    subjects: dict[str, Subject] = {}
    with collect_problems(problems, USER_ERRORS, "device: "):
        is_auto = settings.device == "auto"
        device = distributed.select_device("auto") if is_auto else torch.device(settings.device)
    if problems:
        return subjects
    paths = (settings.target, settings.model.path, settings.retain_model)
    for (role, key), path in zip(KEYS.items(), paths, strict=True):
        if path is None:
            continue
        with collect_problems(problems, USER_ERRORS, rename_key=("model.path", key)):
            section = dataclasses.replace(settings.model, path=path, init={})
            check_model(section)
            subject = Subject(section, settings.data.prompts, device, role, place(role, path))
            _ = subject.encoder  # raises for a tokenizer that cannot serve
            subjects[role] = subject
    return subjects


@dataclasses.dataclass(frozen=True)
class RecordedModel(ModelOnDemand):
    """A model whose evaluations are stored; its weights load only for one that is missing.

    Attributes:
        settings: the keys of `tif evaluate`.
    """

    settings: Evaluate

    @property
    def context(self) -> int | None:
        """Return the number of tokens that the model can read at once; None = any."""
        return read_context(self.config)

    @functools.cached_property
    def folder(self) -> Path:
        """Return the folder of its evaluations, named by a hash of weights and how they load."""
        path = Path(str(self.section.path))
        name = path.parent.name if path.name == "model" and path.parent.name else path.name
        return Path(self.settings.out) / f"{name}-{hash_json([VERSION, *self.describe()])}"

    @functools.cached_property
    def model(self) -> "PreTrainedModel":
        """Return the model; it is loaded at the first call."""
        if distributed.is_first_rank():
            console.print(f"loading {self.section.path}", soft_wrap=True)
        return self.load()

    def setup(self, benchmark: Benchmark) -> EvaluationSetup:
        """Return how the model is evaluated on a benchmark; this loads it."""
        texts = list_longest_texts(self.encoder, benchmark.sets)
        wanted, model = self.settings.batching, self.model
        batching = distributed.run_on_first_rank(
            lambda: choose_batching(wanted, model, texts, "batching")
        )
        return EvaluationSetup(self.encoder, self.settings.eval, batching, benchmark.tasks)

    def evaluate_benchmark(
        self, name: str, benchmark: Benchmark, original: "RecordedModel | None" = None
    ) -> tuple[Evaluation, Path]:
        """Return the model's records of a benchmark's sets and their folder; made now if missing.

        `name`: of the benchmark, for the folder. `original`: what KL compares with; None = no KL.

        Raises:
            ConfigError: If they are missing and `out` cannot be written to, or a text is too long.
        """
        rules, tasks = self.settings.eval, benchmark.tasks
        selected = select_samples(benchmark.sets, rules, tasks)
        data = {set_name: fingerprint(samples) for set_name, samples in selected.items()}
        keys: list[Any] = [describe_protocol(rules, self.encoder, tasks, self.context), data]
        if original is not None:
            keys.append(original.folder.name)
        folder = self.folder / f"{name}-{hash_json(keys)}"
        if distributed.run_on_first_rank(lambda: files.is_stored(folder)):
            return files.read_evaluation(folder), folder
        check_writable("out", folder)
        questions = EvaluationSetup(self.encoder, rules, "", tasks)
        longest = find_longest_text(questions, benchmark.sets, self.context)
        check_length(self.section, *longest)
        opened = contextlib.nullcontext(original.model) if original is not None else None
        setup, path = self.setup(benchmark), str(self.section.path)
        evaluation = evaluate(
            self.model, benchmark.sets, setup, path, original=(lambda: opened) if opened else None
        )
        if distributed.is_first_rank():
            files.write_evaluation(folder, evaluation, overall.aggregate(evaluation))
        return evaluation, folder


def read_or_compute(path: Path, compute: Callable[[], Any]) -> Any:
    """Return the JSON at `path`; where it is missing or damaged, compute it now and write it."""
    stored = distributed.run_on_first_rank(lambda: _read_json(path))
    if stored is not None:
        return stored
    check_writable("out", path.parent)
    content = compute()
    if distributed.is_first_rank():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content))
    return content


def _read_json(path: Path) -> Any:
    """Return the JSON at `path`, or None; damage is told."""
    if not path.exists():
        return None
    try:
        return json.loads(read_bytes(path))
    except (OSError, ValueError) as error:
        line = f"{path}: {one_line(error)}: it is made again"
        console.print(line, soft_wrap=True)
        return None
