"""UnlearningDataModule: encoded samples in batches, the same draw for any resume and any number of processes."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from tif import losses
from tif.config.schema import Config
from tif.data.benchmarks import select_training_samples
from tif.data.encoding import Batch, Encoded, Encoder, collate, split_into_pieces
from tif.data.refusals import read_refusals
from tif.data.samples import Benchmark, Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclasses.dataclass
class Row:
    """One forget (or training) sample by its position, with the retain sample and the alternate drawn for it."""

    position: int
    item: Encoded
    retain: Encoded | None = None
    alternate: Encoded | None = None


class Pairs(Dataset):
    """Training samples by position, each with a retain sample and an alternate where those are given.

    Both are drawn from a generator seeded by (seed, epoch, position): no global random state, the same draw for any
    number of processes and after a resume, another one in each epoch.

    Args:
        items: training samples.
        retain: what retain samples are drawn from.
        alternate: (position, draw from 0 to 1) -> the item's prompt with another answer, or a refusal.
        seed: of the draws.
    """

    def __init__(
        self,
        items: Sequence[Encoded],
        retain: Sequence[Encoded] | None,
        alternate: Callable[[int, float], Encoded] | None,
        seed: int,
    ) -> None:
        self.items, self.retain, self.alternate, self.seed, self.epoch = items, retain, alternate, seed, 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Row:
        drawn, row = np.random.default_rng((self.seed, self.epoch, position)), Row(position, self.items[position])
        if self.retain is not None:
            row.retain = self.retain[int(drawn.integers(len(self.retain)))]
        if self.alternate is not None:
            row.alternate = self.alternate(position, drawn.random())
        return row


class EpochSampler(DistributedSampler):
    """Shuffles by (seed, epoch) and tells the dataset the epoch.

    Every process reads whole batches (the case of one replica): `tif.module` shares them out.
    """

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch, after a resume too."""
        super().set_epoch(epoch)
        self.dataset.epoch = epoch  # type: ignore[attr-defined]


class Loader(DataLoader):
    """A DataLoader that can go on within an epoch, from the state that a checkpoint has.

    The batches before it are made and dropped: the draws belong to positions, so nothing depends on them.
    """

    given = 0  # batches since the epoch began
    _skip = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Batches, after a resume from where it was."""
        self.given, self._skip = self._skip, 0
        for batch in itertools.islice(super().__iter__(), self.given, None):
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches given; a finished epoch counts as 0 of the next."""
        return {"given": self.given % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip those in the next epoch."""
        self._skip = state["given"]


class UnlearningDataModule(L.LightningDataModule):
    """Encodes the samples of an experiment and batches them.

    Args:
        cfg: sections `data`, `loss` (does it need retain samples or alternates?) and `run.seed` are read.
        benchmark: its forget samples carry the identifier's spans where the loss needs them.
        tokenizer: of the policy.

    Attributes:
        alternates: other answers by sample id, to be set before the batches where `loss.alternates.kind=generated`.
    """

    def __init__(self, cfg: Config, benchmark: Benchmark, tokenizer: "PreTrainedTokenizerBase") -> None:
        super().__init__()
        self.cfg, self.benchmark = cfg, benchmark
        self.encoder = Encoder(tokenizer, cfg.data.template, cfg.data.overlap)
        samples = select_training_samples(benchmark, cfg.data.train)
        parts = [(s, part) for s in samples for part in self._pieces(s)]
        self.samples, self.items = [s for s, _ in parts], [part for _, part in parts]
        self.alternates: Mapping[str, Sequence[str]] | None = None
        self.retain = None
        if cfg.loss.retain != "none":
            self.retain = [part for s in benchmark.retain for part in self._pieces(s)]

    def _pieces(self, sample: Sample) -> list[Encoded]:
        return split_into_pieces(self.encoder.encode(sample), self.cfg.data.max_tokens)

    def _alternate(self, position: int, draw: float) -> Encoded:
        sample, known = self.samples[position], read_refusals()
        if self.cfg.loss.alternates.kind == "generated":
            assert self.alternates is not None
            known = tuple(self.alternates[sample.id])
        return self.encoder.encode(sample, answer=known[int(draw * len(known))])

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of `data.batch_size` samples, the same in every process."""
        alternate = self._alternate if losses.get_forget_term(self.cfg.loss).alternate else None
        dataset = Pairs(self.items, self.retain, alternate, self.cfg.run.seed)
        # Seeds far apart: DistributedSampler adds the epoch to its seed.
        sampler = EpochSampler(dataset, 1, 0, shuffle=True, seed=self.cfg.run.seed * 1_000_003)
        # A loader without its own generator draws a seed from torch's global one at each epoch.
        return Loader(
            dataset,
            batch_size=self.cfg.data.batch_size,
            sampler=sampler,
            collate_fn=self._collate,
            generator=torch.Generator().manual_seed(self.cfg.run.seed),
        )

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        """Move the tensors of a Batch."""
        return batch.to(device)

    def _collate(self, rows: Sequence[Row]) -> Batch:
        index, pad = [row.position for row in rows], self.encoder.pad_id
        batch = collate([row.item for row in rows], index, pad)
        if retain := [row.retain for row in rows if row.retain]:
            batch.retain = collate(retain, index, pad)
        if alternate := [row.alternate for row in rows if row.alternate]:
            batch.alternate = collate(alternate, index, pad)
        return batch
