"""Any Hugging Face causal LM and its recorded evaluations, kept on disk by model, rules and data."""

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import tif
from tif.config.evaluate_command import Evaluate
from tif.config.paths import check_writable
from tif.config.schema import Model
from tif.data.encoding import Encoder
from tif.data.samples import Benchmark, fingerprint
from tif.evaluation import evaluate as evaluation
from tif.metrics import overall
from tif.models import load as models
from tif.records import files as records
from tif.scoring.batching import choose_batching
from tif.utils import distributed
from tif.utils.files import write_text
from tif.utils.hashing import hash_json, list_model_files
from tif.utils.terminal import console

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NOT_WEIGHTS = ("path", "base", "init", "reference", "gradient_checkpointing", "trust_remote_code")  # of section model


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model that is loaded when something is asked of it that is not on disk.

    Attributes:
        cfg: section `model`, with its path.
        settings: the command's other keys.
        device: where it runs.
    """

    cfg: Model
    settings: Evaluate
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
        )

    @property
    def context(self) -> int | None:
        """Tokens that it can read at once."""
        return getattr(self.config, "max_position_embeddings", None)

    @functools.cached_property
    def folder(self) -> Path:
        """Where its evaluations are: <out>/<name>-<hash of its weights and how they are loaded>."""
        path = Path(str(self.cfg.path))
        name = path.parent.name if path.name == "model" and path.parent.name else path.name
        hub = [self.cfg.path, getattr(self.config, "_commit_hash", None)]
        weights = list_model_files(self.cfg.path) or hub
        keys = {k: v for k, v in dataclasses.asdict(self.cfg).items() if k not in NOT_WEIGHTS}
        return Path(self.settings.out) / f"{name}-{hash_json([tif.__version__, weights, keys])}"

    @functools.cached_property
    def model(self) -> "PreTrainedModel":
        """Loaded now."""
        if distributed.is_first_rank():
            console.print(f"loading {self.cfg.path}", markup=False, soft_wrap=True)
        policy = models.load_policy(self.cfg, self.encoder.tokenizer, 0)
        return policy.to(self.device).eval()  # type: ignore[arg-type]

    @functools.cached_property
    def batching(self) -> str:
        """Packed or padded, see choose_batching."""
        return choose_batching(self.settings.batching, self.model)

    def evaluation(
        self, name: str, benchmark: Benchmark, original: "Checkpoint | None" = None
    ) -> tuple[records.Evaluation, Path]:
        """Its records of a benchmark's sets and their folder; made now unless they are there.

        Args:
            name: of the benchmark, for the folder.
            benchmark: its sets and tasks.
            original: what KL compares with; None = no KL.

        Raises:
            ConfigError: If they are not, and `out` cannot be written to.
        """
        asking, own = self.settings.eval, benchmark.tasks
        used = evaluation.cut(benchmark.sets, asking, own)
        rules = evaluation.described(asking, self.encoder, own, self.context)
        data = {key: fingerprint(samples) for key, samples in used.items()}
        made_by = [rules, data] if original is None else [rules, data, original.folder.name]
        folder = self.folder / f"{name}-{hash_json(made_by)}"
        if distributed.run_on_first_rank((folder / records.AGGREGATES).exists):
            return records.read_evaluation(folder), folder
        check_writable("out", folder)
        found = evaluation.evaluate(
            self.model,
            self.encoder,
            benchmark.sets,
            asking,
            self.batching,
            str(self.cfg.path),
            original=(lambda: contextlib.nullcontext(original.model)) if original else None,
            tasks=own,
        )
        if distributed.is_first_rank():
            records.write_evaluation(folder, found, overall.aggregate(found))
        return found, folder


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """The JSON at `path`; made now unless it is there."""
    if distributed.run_on_first_rank(path.exists):
        return json.loads(path.read_text(encoding="utf-8"))
    check_writable("out", path.parent)
    found = make()
    if distributed.is_first_rank():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found))
    return found


def device(asked: str) -> torch.device:
    """What `device` names; auto = this process's GPU where there is one."""
    if asked != "auto":
        return torch.device(asked)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


@contextlib.contextmanager
def processes(asked: str) -> Iterator[None]:
    """Inside, the processes that torchrun or srun started know each other; alone, nothing happens. `asked`: device."""
    distributed.start(asked)
    try:
        yield
    finally:
        distributed.finish()


@contextlib.contextmanager
def told_on_stderr(wanted: bool) -> Iterator[None]:
    """What is told on the way goes to stderr inside, so that stdout holds nothing but the answer."""
    before = console.stderr
    console.stderr = wanted or before
    try:
        yield
    finally:
        console.stderr = before
