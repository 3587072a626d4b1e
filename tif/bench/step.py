"""what=step: a TPO step, ours against three other ways to compute the same loss."""

import dataclasses
import statistics
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from tif.bench.matrices import flops, rate
from tif.bench.process import Memory, alone, now
from tif.config.errors import ConfigError
from tif.config.loss import Loss
from tif.config.model import Model
from tif.utils import torch_state

if TYPE_CHECKING:
    import torch
    from rich.table import Table
    from transformers import PreTrainedModel

    from tif.bench.command import Bench
    from tif.bench.ways import Way
    from tif.data.encoding import Batch, Encoded
    from tif.training.module import UnlearningModule

WAYS = ("ours", "release", "two-pass", "dynamic")
LOSS = Loss(beta=0.3, pl_weight=0.01)
SAME = 1e-4  # relative difference of the ways' losses
ROUGHLY = 2e-2  # the same with weights of fewer bits, whose products depend on the batch's form
# What is trained where model.path and model.init are null: SmolLM2-135M's shape with random weights.
SHAPE = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip


def rows(cfg: "Bench") -> list[dict[str, Any]]:
    """A row a way and batch size.

    Keys: batch_size, way, steps, loss, seconds (median of a step with its optimizer step), ratio (median over batches
    of its seconds to ours on the same batch), tokens_per_second (real tokens), gflops and matmul_gflops (ours: what the
    step reaches, and the machine's matrix product at the step's shapes), share, memory_mb (above weights, gradients and
    optimizer; where measured; None = more than the machine has), whole_mb (with them).

    Raises:
        ConfigError: If model or data cannot be had.
        AssertionError: If the ways' losses differ by more than 1e-4 relative (2e-2 in fewer than 32 bits); nothing was
            measured then.
    """
    from tif.utils.terminal import track

    bench = Stand(cfg)
    ways, optimizer = {name: bench.way(name) for name in WAYS if name != "release" or cfg.release}, bench.optimizer()
    found = []
    for size in cfg.batch_sizes:
        some = {name: way for name, way in ways.items() if name != "release" or size <= cfg.release}
        found += _timed(bench, some, optimizer, bench.batches(size, cfg.samples // size))
    del bench, ways, optimizer  # the processes that measure memory need it
    if cfg.memory:
        wanted = [r for r in found if r["batch_size"] in (min(cfg.batch_sizes), max(cfg.batch_sizes))]
        for row in track(wanted, "memory"):
            try:
                row["memory_mb"], row["whole_mb"] = alone(_memory, cfg, row["batch_size"], row["way"])
            except BrokenProcessPool:  # killed for want of memory: the times are not lost with it
                row["memory_mb"] = None
    return found


def _timed(
    bench: "Stand", ways: dict[str, "Way"], optimizer: "torch.optim.Optimizer", batches: list["Batch"]
) -> list[dict[str, Any]]:
    """The ways on the same batches, in turns, in this process."""
    from tif.utils.terminal import progress_bar

    size, before = len(batches[0].ids), rate(bench.policy, batches[0])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    values: dict[str, list[float]] = {name: [] for name in ways}
    for name in ways.keys() - {"release"}:
        bench.step(ways[name], optimizer, batches[0])  # warm up
    with progress_bar(f"batch {size}", len(batches)) as line:
        for number, batch in enumerate(batches):
            for name, way in ways.items():
                if name == "release" and number:
                    continue  # it takes as long as all the rest
                loss, time_taken = bench.step(way, optimizer, batch)
                values[name].append(loss)
                seconds[name].append(time_taken)
            line.advance()
    for name, losses in values.items():
        differ = max(abs(a - b) / abs(b) for a, b in zip(losses, values["ours"], strict=False))
        assert differ < bench.same, f"{name}: loss differs by {differ:.1e} from ours"
    reachable = statistics.mean((before, rate(bench.policy, batches[0])))
    tokens = [int(b.lengths.sum()) for b in batches]
    found = []
    for name, spent in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(spent, seconds["ours"], strict=False))
        speed = sum(tokens[: len(spent)]) / sum(spent)
        row = {"batch_size": size, "way": name, "steps": len(spent), "loss": round(statistics.mean(values[name]), 4),
               "seconds": round(statistics.median(spent), 3), "ratio": round(ratio, 2),
               "tokens_per_second": round(speed)}  # fmt: skip
        if name == "ours":
            reached = sum(flops(bench.policy, batch) for batch in batches) / sum(spent)
            row |= {"gflops": round(reached / 1e9, 1), "matmul_gflops": round(reachable / 1e9, 1),
                    "share": round(reached / reachable, 3)}  # fmt: skip
        found.append(row)
    return found


def _memory(cfg: "Bench", size: int, name: str) -> tuple[int, int]:
    """MB at the peak of a way's step above weights, gradients and optimizer, and with them; a second model counts."""
    bench = Stand(cfg)
    # The one with the longest sample among those that are timed sets a run's memory.
    index = max((b.index for b in bench.batches(size, cfg.samples // size)),
                key=lambda at: max(len(bench.items[i].input_ids) for i in at))  # fmt: skip
    bench.items = [bench.items[i] for i in index]
    optimizer = bench.optimizer()
    memory = Memory(cfg.device)
    way = bench.way(name)
    memory.restart()
    bench.step(way, optimizer, bench.all())
    above = memory.peak_mb()
    return round(above), round(above + memory.held)


class Stand:
    """Model and data of the measurements; steps change no weight."""

    def __init__(self, cfg: "Bench", made: tuple["PreTrainedModel", list["Encoded"]] | None = None) -> None:
        import torch

        from tif.utils.terminal import quiet_libraries

        quiet_libraries()
        if cfg.threads:
            torch.set_num_threads(cfg.threads)
        self.device = torch.device(cfg.device)
        self.policy, self.items = made or load(cfg)
        self.same = SAME if cfg.model.dtype == "float32" else ROUGHLY
        self.policy.to(self.device)  # type: ignore[arg-type]
        self.policy.train()

    def way(self, name: str) -> "Way":
        """What leaves the gradient of a batch's loss in the weights."""
        import copy

        from tif.bench import ways as bench_ways

        if name == "ours":
            return bench_ways.ours(self.module())
        policy = self.policy
        reference = copy.deepcopy(policy).eval().requires_grad_(False)
        make = {"release": bench_ways.release, "two-pass": bench_ways.two_pass, "dynamic": bench_ways.dynamic}[name]
        return make(policy, reference, LOSS)

    def module(self) -> "UnlearningModule":
        """tif's own step, with the reference that `auto` gives."""
        from tif.config.schema import Data, Optimizer, TrainerKeys
        from tif.models.references import make_reference
        from tif.training.module import StepSettings, UnlearningModule

        reference = make_reference("auto", self.policy, self.items, 0, "packed")
        settings = StepSettings(Data(), LOSS, Optimizer(), TrainerKeys(), "packed")
        return UnlearningModule(self.policy, settings, reference)

    def optimizer(self) -> "torch.optim.Optimizer":
        """AdamW that does all its work and changes nothing, so that all steps see the same weights.

        Gradients and its state are in memory from now on.
        """
        import torch

        trained = [p for p in self.policy.parameters() if p.requires_grad]
        made = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0, fused=True)
        for p in trained:
            p.grad = p.detach().clone()  # zeros would not be in memory before they are written to
        made.step()
        return made

    def step(self, way: "Way", optimizer: "torch.optim.Optimizer", batch: "Batch") -> tuple[float, float]:
        """Loss and seconds of a whole step."""
        since = now(self.device.type)
        loss = way(batch)
        optimizer.step()
        optimizer.zero_grad()
        return loss, now(self.device.type) - since

    def batches(self, size: int, count: int) -> list["Batch"]:
        """Samples drawn without repetition as far as there are enough."""
        import torch

        order = torch.randperm(len(self.items), generator=torch.Generator().manual_seed(0)).tolist()
        order *= -(-size * count // len(order))
        return [self._batch(order[i * size : (i + 1) * size]) for i in range(count)]

    def all(self) -> "Batch":
        """All samples in one batch."""
        return self._batch(range(len(self.items)))

    def _batch(self, index: Sequence[int]) -> "Batch":
        from tif.data.encoding import collate

        return collate([self.items[i] for i in index], index, 0).to(self.device)


def load(cfg: "Bench") -> tuple["PreTrainedModel", list["Encoded"]]:
    """The policy and the encoded forget samples.

    Raises:
        ConfigError: One line naming the key.
    """
    from tif import identifiers
    from tif.data.benchmarks import list_tokenizer_texts, read_benchmark
    from tif.data.encoding import Encoder
    from tif.models import load as models
    from tif.training.datamodule import DataSettings, UnlearningDataModule

    try:
        if cfg.model.path:
            models.check_model(cfg.model)
        benchmark = read_benchmark(cfg.data)
        forget = identifiers.identify(cfg.identifier, benchmark.forget)
        benchmark = dataclasses.replace(benchmark, forget=forget)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    tokenizer = models.load_tokenizer(cfg.model, list_tokenizer_texts(benchmark, cfg.data.template))
    policy = models.load_policy(cfg.model, tokenizer, 0) if cfg.model.path else random_model(cfg.model, cfg.device)
    encoder = Encoder(tokenizer, cfg.data.template, cfg.data.overlap)
    items = UnlearningDataModule(benchmark, encoder, DataSettings(cfg.data, LOSS, seed=0)).items
    return policy, items


def random_model(cfg: Model, device: str = "cpu") -> "PreTrainedModel":
    """A Llama of the shape `cfg.init` with random weights, as a run would train it: as fast as a trained one."""
    import tempfile

    import torch
    import transformers

    from tif.models import load as models

    shape = transformers.LlamaConfig(**(cfg.init or SHAPE))
    keys = {"dtype": getattr(torch, cfg.dtype), "attn_implementation": cfg.attention}
    with torch_state.seeded(0), torch.device(device):
        made = transformers.AutoModelForCausalLM.from_config(shape, **keys)
    if cfg.quantize == "none":
        return models.prepare_for_training(made, cfg, 0)
    with tempfile.TemporaryDirectory() as folder:  # bits are taken off while weights are read
        made.save_pretrained(folder)
        return models.prepare_for_training(models.load_pretrained(dataclasses.replace(cfg, path=folder)), cfg, 0)


def table(rows: Sequence[dict[str, Any]]) -> "Table":
    """For the terminal."""
    from rich.table import Table

    made = Table("batch", "way", "seconds", "ours = 1", "tokens/s", "of GFLOP/s", "MB", "whole MB", box=None,
                 padding=(0, 2, 0, 0))  # fmt: skip
    for row in rows:
        share = f"{row['share']:.0%} of {row['matmul_gflops']:.0f}" if "share" in row else ""
        asked = row.get("memory_mb", "")
        memory = "did not fit" if asked is None else f"{asked:,}" if asked != "" else ""
        made.add_row(str(row["batch_size"]), row["way"], f"{row['seconds']:.2f}", f"{row['ratio']:.2f}",
                     f"{row['tokens_per_second']:,}", share, memory,
                     f"{row['whole_mb']:,}" if "whole_mb" in row else "")  # fmt: skip
    return made
