"""UnlearningDataModule: encoded samples in batches, the same draw for any resume and any number of processes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from tif.data.encode import Batch, Encoded, Encoder, collate, pieces
from tif.data.samples import Benchmark, Sample
from tif.schema import Config, Data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_benchmark(cfg: Data) -> Benchmark:
    """The benchmark that `cfg` names.

    Raises:
        ValueError: One line naming the key or file, see the readers.
    """
    if cfg.benchmark == "tofu":
        from tif.data.tofu import tofu

        return tofu(str(cfg.path), cfg.split, cfg.max_retain)
    if cfg.benchmark == "text":
        from tif.data.text import text

        return text(str(cfg.path))
    from tif.data.fictitious import fictitious

    own = cfg.fictitious
    return fictitious(own.authors, own.questions_per_author, own.forget_share, own.seed)


def training_samples(benchmark: Benchmark, train: str) -> tuple[Sample, ...]:
    """What `data.train` trains on: the forget set, or what a retain or target model reads."""
    if train == "forget":
        return benchmark.forget
    return benchmark.background + benchmark.retain + (benchmark.forget if train == "full" else ())


def texts(benchmark: Benchmark, encoder_prompt: str) -> list[str]:
    """Everything a tokenizer made for this benchmark should have seen."""
    found = []
    for s in (*benchmark.background, *benchmark.retain, *benchmark.forget):
        for answer in (s.answer, s.paraphrased_answer, *s.perturbed_answers):
            if answer is not None:
                found.append(f"{encoder_prompt.replace('{prompt}', s.prompt)} {answer}")
    return found


class Pairs(Dataset):
    """Training samples by position, each with a retain sample where `retain` is given.

    The retain sample is drawn from a generator seeded by (seed, epoch, position): no global random state, the same
    draw for any number of processes and after a resume, another one in each epoch.
    """

    def __init__(self, items: Sequence[Encoded], retain: Sequence[Encoded] | None, seed: int) -> None:
        self.items, self.retain, self.seed, self.epoch = items, retain, seed, 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> tuple[int, Encoded, Encoded | None]:
        if self.retain is None:
            return position, self.items[position], None
        draw = np.random.default_rng((self.seed, self.epoch, position)).integers(len(self.retain))
        return position, self.items[position], self.retain[int(draw)]


class EpochSampler(DistributedSampler):
    """Shuffles by (seed, epoch) and tells the dataset the epoch; one process is the case of one replica."""

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch, after a resume too."""
        super().set_epoch(epoch)
        self.dataset.epoch = epoch  # type: ignore[attr-defined]


class UnlearningDataModule(L.LightningDataModule):
    """Encodes the samples of an experiment and batches them.

    Args:
        cfg: sections `data`, `loss` (does it need retain samples?) and `run.seed` are read.
        benchmark: its forget samples carry the identifier's spans where the loss needs them.
        tokenizer: of the policy.
    """

    def __init__(self, cfg: Config, benchmark: Benchmark, tokenizer: "PreTrainedTokenizerBase") -> None:
        super().__init__()
        self.cfg, self.benchmark = cfg, benchmark
        self.encoder = Encoder(tokenizer, cfg.data.template, cfg.data.overlap)
        self.items = self._encoded(training_samples(benchmark, cfg.data.train))
        self.retain = self._encoded(benchmark.retain) if cfg.loss.retain != "none" else None

    def _encoded(self, samples: Sequence[Sample]) -> list[Encoded]:
        return [part for s in samples for part in pieces(self.encoder.encode(s), self.cfg.data.max_tokens)]

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of `data.batch_size` samples."""
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        dataset = Pairs(self.items, self.retain, self.cfg.run.seed)
        # Seeds far apart: DistributedSampler adds the epoch to its seed.
        sampler = EpochSampler(dataset, world, rank, shuffle=True, seed=self.cfg.run.seed * 1_000_003)
        # A loader without its own generator draws a seed from torch's global one at each epoch.
        return DataLoader(
            dataset,
            batch_size=self.cfg.data.batch_size,
            sampler=sampler,
            collate_fn=self._collate,
            generator=torch.Generator().manual_seed(self.cfg.run.seed),
        )

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        """Move the tensors of a Batch."""
        from tif.models import to_device

        return to_device(batch, device)

    def _collate(self, rows: Sequence[tuple[int, Encoded, Encoded | None]]) -> Batch:
        index, items, retain = zip(*rows, strict=True)
        batch = collate(items, index, self.encoder.pad_id)
        if retain[0] is not None:
            batch.retain = collate(retain, index, self.encoder.pad_id)
        return batch
