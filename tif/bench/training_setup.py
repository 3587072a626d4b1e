"""Model, data, optimizer and clock of the steps that are measured."""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import transformers

from tif import identifiers, losses
from tif.bench.process import read_clock
from tif.bench.settings import BenchSettings
from tif.config.errors import ConfigError
from tif.config.schema import Data, Loss, Model, Optimizer, TrainerKeys
from tif.data.benchmarks import list_tokenizer_texts, read_benchmark
from tif.data.encoding import Batch, Encoded, Encoder, collate
from tif.models import load as models
from tif.models.references import make_reference
from tif.probes.check_model import check_model
from tif.probes.packed_rows import choose_batching
from tif.probes.small_copy import RowSettings
from tif.training.datamodule import DataSettings, UnlearningDataModule
from tif.training.module import StepSettings, UnlearningModule
from tif.utils.torch_state import seeded, set_training_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Step = Callable[[Batch], float]  # leaves the gradient in the policy's weights, returns the loss
# What is trained where model.path and model.init are null: SmolLM2-135M's shape, random weights.
DEFAULT_SHAPE = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "tie_word_embeddings": True,
}  # fmt: skip


def tpo_loss(has_retain_term: bool) -> Loss:
    """Return the loss that is measured."""
    return losses.make_loss(beta=0.3, pl_weight=0.01, retain="ce" if has_retain_term else "none")


class TrainingSetup:
    """A model in training whose weights do not change.

    The loss has a retain term where retain samples are given.
    """

    def __init__(
        self,
        settings: BenchSettings,
        policy: "PreTrainedModel",
        forget: Sequence[Encoded],
        retain: Sequence[Encoded] | None = None,
    ) -> None:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.device = torch.device(settings.device)
        self.policy = models.move_model(policy, self.device)
        set_training_mode(self.policy)
        self.forget, self.retain = forget, retain
        self.loss = tpo_loss(retain is not None)
        texts = [item.input_ids for item in [*forget, *(retain or ())]]
        self.batching = choose_batching(settings.data.batching, self.policy, texts)

    def make_step(self) -> Step:
        """Return a step as `UnlearningModule.accumulate` takes it on one process."""
        cached = make_reference("auto", self.policy, self.forget, 0, self.batching)
        settings = StepSettings(Data(), self.loss, Optimizer(), TrainerKeys(), self.batching)
        module = UnlearningModule(self.policy, settings, cached)

        def step(batch: Batch) -> float:
            counts, total = losses.count_batch(batch, self.loss), 0.0
            for positions in module.parts(batch):
                share = module.loss(batch.select_rows(positions), counts).total
                share.backward()
                total += share.item()
            return total

        return step

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return an AdamW that does all its work and changes nothing.

        All steps see the same weights. Gradients and optimizer state are in memory from now on.
        """
        trained = [weight for weight in self.policy.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0, fused=True)
        for weight in trained:
            weight.grad = weight.detach().clone()  # zeros take no memory before they are written
        optimizer.step()
        return optimizer

    def run_step(
        self, step: Step, optimizer: torch.optim.Optimizer, batch: Batch
    ) -> tuple[float, float]:
        """Return loss and seconds of a step, its optimizer step included."""
        start = read_clock(self.device.type)
        loss = step(batch)
        optimizer.step()
        optimizer.zero_grad()
        return loss, read_clock(self.device.type) - start

    def keep_only(self, positions: Sequence[int]) -> None:
        """Drop all forget samples but these; each keeps its retain sample."""
        self.forget = [self.forget[i] for i in positions]
        if self.retain is not None:
            self.retain = [self.retain[i % len(self.retain)] for i in positions]

    def draw_batches(self, size: int, count: int) -> list[Batch]:
        """Return batches of samples in random order; none comes twice while there are others."""
        total = len(self.forget)
        order = torch.randperm(total, generator=torch.Generator().manual_seed(0)).tolist()
        order *= -(-size * count // total)
        return [self.make_batch(order[i * size : (i + 1) * size]) for i in range(count)]

    def make_batch(self, positions: Sequence[int] | None = None) -> Batch:
        """Return the batch of these forget samples (None = all), each with a retain sample."""
        positions = range(len(self.forget)) if positions is None else positions
        batch = collate([self.forget[i] for i in positions], positions, pad_id=0)
        if self.retain is not None:
            partners = [self.retain[i % len(self.retain)] for i in positions]
            batch.retain = collate(partners, positions, pad_id=0)
        return batch.to(self.device)


def load_setup(settings: BenchSettings) -> TrainingSetup:
    """Load the model and the samples that the settings name; else raise ConfigError."""
    data = settings.data
    try:
        if settings.model.path:
            check_model(settings.model, rows=RowSettings(data.batching, settings.device))
        benchmark = read_benchmark(data)
        forget = identifiers.identify(settings.identifier, benchmark.forget)
        benchmark = dataclasses.replace(benchmark, forget=forget)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    texts = list_tokenizer_texts(benchmark, data.prompts)
    tokenizer = models.load_tokenizer(settings.model, texts)
    encoder = Encoder(tokenizer, data.prompts, data.overlap)
    keys = DataSettings(data, tpo_loss(settings.retain), seed=0)
    samples = UnlearningDataModule(benchmark, encoder, keys)
    if settings.model.path:
        device = torch.device(settings.device)
        policy = models.load_policy(settings.model, tokenizer, 0, device=device)
    else:
        policy = make_random_model(settings.model, settings.device)
    return TrainingSetup(settings, policy, samples.items, samples.retain)


def make_random_model(model: Model, device: str = "cpu") -> "PreTrainedModel":
    """Return a Llama of the shape `model.init` with random weights; as fast as a trained one."""
    shape = transformers.LlamaConfig(**(model.init or DEFAULT_SHAPE))
    keys = {"dtype": getattr(torch, model.dtype), "attn_implementation": model.attention}
    with seeded(0), torch.device(device):
        policy = transformers.AutoModelForCausalLM.from_config(shape, **keys)
    if model.quantize != "none":
        with tempfile.TemporaryDirectory() as folder:  # weights are quantised as they are read
            policy.save_pretrained(folder)
            stored = dataclasses.replace(model, path=folder)
            policy = models.load_pretrained(stored, torch.device(device))
    return models.prepare_for_training(policy, model, 0)
