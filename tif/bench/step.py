"""what=step: a step of TPO on this machine, as `tif fit` takes it."""

import dataclasses
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import torch
import transformers

from tif import identifiers, losses
from tif.bench.process import PeakMemory, read_clock, run_alone
from tif.bench.settings import BenchSettings
from tif.config.errors import ConfigError
from tif.config.schema import Model, Optimizer, TrainerKeys
from tif.data.benchmarks import list_tokenizer_texts, read_benchmark
from tif.data.encoding import Batch, Encoder
from tif.models import load as models
from tif.models.references import make_reference
from tif.probes.check_model import check_model
from tif.probes.packed_rows import choose_batching
from tif.probes.small_copy import RowSettings
from tif.training.datamodule import UnlearningDataModule
from tif.training.module import StepSettings, UnlearningModule
from tif.utils.terminal import track
from tif.utils.torch_state import seeded, set_training_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COLUMNS = {
    "batch": "{batch_size}",
    "s/step": "{seconds:.2f}",
    "tokens/s": "{tokens_per_second:,}",
    "MB": "{memory_mb:,}",
    "whole MB": "{whole_mb:,}",
}
NOTE = "MB: memory above weights, gradients and optimizer; whole MB: with them"
# What is trained where model.path and model.init are null: SmolLM2-135M's shape, random weights.
DEFAULT_SHAPE = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "tie_word_embeddings": True,
}  # fmt: skip
Step = Callable[[Batch], float]  # leaves the gradient in the policy's weights, returns the loss


def measure(settings: BenchSettings) -> list[dict[str, Any]]:
    """Return a row for each batch size, which is measured in a process of its own.

    Keys: batch_size, steps, loss, seconds (median of a step with its optimizer step),
    tokens_per_second (real tokens). Where memory was measured: memory_mb above weights, gradients
    and optimizer (None = more than the machine has), whole_mb with them.

    Raises:
        ConfigError: If model or data cannot be loaded.
    """
    if settings.model.path:
        check_model(settings.model, rows=RowSettings(settings.data.batching, settings.device))
    rows = []
    for size in track(settings.batch_sizes, "batch sizes"):
        try:
            rows.append(run_alone(measure_size, settings, size))
        except BrokenProcessPool:  # the process was killed because the machine has no more memory
            rows.append({"batch_size": size, "memory_mb": None})
    return rows


def measure_size(settings: BenchSettings, size: int) -> dict[str, Any]:
    """Return the row of a batch size."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    policy, data = load_training(settings)
    batches = draw_batches(policy, data, size, settings.samples // size)
    optimizer = make_idle_optimizer(policy)
    memory = PeakMemory(settings.device) if settings.memory else None
    step = make_step(policy, data)
    take_step(step, optimizer, batches[0])  # warm up
    if memory:
        memory.restart()
    timings = [take_step(step, optimizer, batch) for batch in batches]
    losses_of_steps, seconds = zip(*timings, strict=True)
    row = {
        "batch_size": size,
        "steps": len(timings),
        "loss": round(statistics.mean(losses_of_steps), 4),
        "seconds": round(statistics.median(seconds), 3),
        "tokens_per_second": round(sum(map(_count_tokens, batches)) / sum(seconds)),
    }
    if memory:
        above = memory.peak_mb()
        row |= {"memory_mb": round(above), "whole_mb": round(above + memory.held_mb)}
    return row


def make_idle_optimizer(policy: "PreTrainedModel") -> torch.optim.Optimizer:
    """Return an AdamW that does all its work and changes nothing: all steps see the same weights.

    Gradients and its state are in memory from now on.
    """
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0, fused=True)
    for weight in trained:
        weight.grad = weight.detach().clone()  # zeros take no memory before they are written
    optimizer.step()
    return optimizer


def take_step(step: Step, optimizer: torch.optim.Optimizer, batch: Batch) -> tuple[float, float]:
    """Return loss and seconds of a step, its optimizer step included."""
    device = batch.input_ids.device.type
    start = read_clock(device)
    loss = step(batch)
    optimizer.step()
    optimizer.zero_grad()
    return loss, read_clock(device) - start


def _count_tokens(batch: Batch) -> int:
    """Return all real tokens, those of the retain samples included."""
    retain = 0 if batch.retain is None else int(batch.retain.lengths.sum())
    return int(batch.lengths.sum()) + retain


def draw_batches(
    policy: "PreTrainedModel", data: UnlearningDataModule, size: int, count: int
) -> list[Batch]:
    """Return batches of samples in random order; none comes twice while there are others."""
    loader, total = data.train_dataloader(), len(data.items)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0)).tolist()
    order *= -(-size * count // total)
    batches = []
    for start in range(0, size * count, size):
        rows = [loader.dataset[position] for position in order[start : start + size]]
        batches.append(loader.collate_fn(rows).to(policy.device))
    return batches


def load_training(settings: BenchSettings) -> tuple["PreTrainedModel", UnlearningDataModule]:
    """Load model and samples, or raise ConfigError; data.batching is then packed or padded."""
    data, model = settings.data, settings.model
    try:
        benchmark = read_benchmark(data)
        forget = identifiers.identify(settings.identifier, benchmark.forget)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    benchmark = dataclasses.replace(benchmark, forget=forget)
    tokenizer = models.load_tokenizer(model, list_tokenizer_texts(benchmark, data.prompts))
    encoder = Encoder(tokenizer, data.prompts, data.overlap)
    if model.path:
        policy = models.load_policy(model, tokenizer, 0, device=torch.device(settings.device))
    else:
        policy = make_random_model(model, settings.device)
    loss = losses.make_loss(beta=0.3, pl_weight=0.01, retain="ce" if settings.retain else "none")
    set_training_mode(models.move_model(policy, settings.device))
    samples = UnlearningDataModule(benchmark, encoder, data, loss)
    texts = [item.input_ids for item in [*samples.items, *(samples.retain or ())]]
    batching = choose_batching(data.batching, policy, texts)
    samples.data = dataclasses.replace(data, batching=batching)
    return policy, samples


def make_step(policy: "PreTrainedModel", data: UnlearningDataModule) -> Step:
    """Return a step as `UnlearningModule` takes it on one process, without the optimizer's part."""
    section, batching = data.data, data.data.batching
    reference = make_reference("auto", policy, data.items, 0, batching)
    step = StepSettings(section, data.loss, Optimizer(), TrainerKeys(), batching)
    module = UnlearningModule(policy, step, reference)

    def accumulate(batch: Batch) -> float:
        counts, total = losses.count_batch(batch, data.loss), 0.0
        for positions in module.parts(batch):
            share = module.loss(batch.select_rows(positions), counts).total
            share.backward()
            total += share.item()
        return total

    return accumulate


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
