"""UnlearningDataModule: encoded samples in batches, the same draws in any process or resume."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from tif import losses
from tif.config.schema import Data, Loss
from tif.data.encoding import Batch, Encoded, Encoder, collate, split_into_pieces
from tif.data.rows import read_refusals
from tif.data.samples import Benchmark, Sample, select_training_samples
from tif.data.wording import Rewording

# A training sample by its position, with its retain sample and its alternate.
PairedSample = tuple[int, Encoded, Encoded | None, Encoded | None]


class PairedSamples(Dataset):
    """Training samples by position, each with a retain sample and an alternate, where given.

    These and the wording are drawn from a generator seeded by (seed, epoch, position): no global
    random state, the same draw for any number of processes and after a resume, another one in each
    epoch.

    Args:
        items: training samples.
        retain: what retain samples are drawn from.
        alternate: (position, draw from 0 to 1) -> the item's prompt with another answer, or a
            refusal.
        seed: of the draws.
        reword: (position, generator) -> the item in the wording of this draw; None: as written.
    """

    def __init__(
        self,
        items: Sequence[Encoded],
        retain: Sequence[Encoded] | None,
        alternate: Callable[[int, float], Encoded] | None,
        seed: int,
        reword: Callable[[int, np.random.Generator], Encoded] | None = None,
    ) -> None:
        self.items = items
        self.retain = retain
        self.alternate = alternate
        self.seed = seed
        self.reword = reword
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> PairedSample:
        generator = np.random.default_rng((self.seed, self.epoch, position))
        retain = alternate = None
        if self.retain is not None:
            retain = self.retain[int(generator.integers(len(self.retain)))]
        if self.alternate is not None:
            alternate = self.alternate(position, generator.random())
        item = self.items[position] if self.reword is None else self.reword(position, generator)
        return position, item, retain, alternate


class EpochSampler(DistributedSampler):
    """Shuffles by (seed, epoch) and tells the dataset the epoch.

    Every process reads the same batches (the case of one replica): the module divides them.
    """

    def set_epoch(self, epoch: int) -> None:
        """Note the epoch; Lightning calls this before each epoch, after a resume too."""
        super().set_epoch(epoch)
        self.dataset.epoch = epoch  # type: ignore[attr-defined]


class ResumableLoader(DataLoader):
    """A DataLoader that can go on within an epoch, from the state that a checkpoint has.

    The batches before it are collated and dropped: the draws belong to positions, so nothing
    depends on them. Lightning saves and loads the state of a loader that has these two methods;
    torch's own has none.
    """

    batches = 0  # given since the epoch began
    _skip = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yield batches, after a resume from where it was."""
        self.batches, self._skip = self._skip, 0
        for batch in itertools.islice(super().__iter__(), self.batches, None):
            self.batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches given; a finished epoch counts as 0 of the next."""
        return {"given": self.batches % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip these batches in the next epoch."""
        self._skip = state["given"]


class UnlearningDataModule(L.LightningDataModule):
    """Encodes the samples of an experiment and batches them.

    Args:
        benchmark: its forget samples carry the identifier's spans where the loss needs them.
        encoder: with the policy's tokenizer.
        data, loss: the sections.
        seed: run.seed, owner of the order of batches and of the draws.
        alternates: other answers by sample id, where `loss.alternates.kind=generated`.

    Attributes:
        items: the training samples, long ones in pieces of `data.max_tokens`.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        encoder: Encoder,
        data: Data,
        loss: Loss,
        seed: int = 0,
        alternates: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.data, self.loss, self.seed = encoder, data, loss, seed
        self.alternates = alternates
        self.samples: list[Sample] = []
        self.items: list[Encoded] = []
        for sample in select_training_samples(benchmark, data.train, data.request):
            for piece in self._pieces(sample):
                self.samples.append(sample)
                self.items.append(piece)
        self.longest = max((len(item.input_ids) for item in self.items), default=0)
        self.retain: list[Encoded] | None = None
        if loss.retain != "none":
            self.retain = []
            for sample in benchmark.retain:
                self.retain += self._pieces(sample)
        self.rewording: Rewording | None = None
        if loss.has_rewordings(data.train):
            self.rewording = Rewording(self.samples, benchmark.retain, loss.wording)

    def _pieces(self, sample: Sample) -> list[Encoded]:
        return split_into_pieces(self.encoder.encode(sample), self.data.max_tokens)

    def _alternate(self, position: int, draw: float) -> Encoded:
        """Return the sample's prompt with another answer, chosen by `draw` (0 to 1)."""
        sample = self.samples[position]
        answers: Sequence[str] = read_refusals()
        if self.loss.alternates.kind == "generated":
            assert self.alternates is not None
            answers = self.alternates[sample.id]
        return self.encoder.encode(sample, answer=answers[int(draw * len(answers))])

    def _reword(self, position: int, generator: np.random.Generator) -> Encoded:
        """Return a sample in the wording of a draw; pieces of long texts stay as they are written.

        Its general words are no text to keep: the preservation term does not see them.
        """
        assert self.rewording is not None
        item = self.items[position]
        sample = self.rewording.draw(position, generator)
        if sample is None or item.id != sample.id:
            return item
        encoded = self.encoder.encode(sample)
        if len(encoded.input_ids) > self.longest:  # what was probed and fits is not exceeded
            return item
        return dataclasses.replace(encoded, gw=[False] * len(encoded.gw))

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches of `data.batch_size` samples, the same in every process."""
        needs_alternates = losses.get_forget_term(self.loss).alternate
        alternate = self._alternate if needs_alternates else None
        reword = self._reword if self.rewording else None
        dataset = PairedSamples(self.items, self.retain, alternate, self.seed, reword)
        # Seeds far apart: DistributedSampler adds the epoch to its seed.
        sampler = EpochSampler(dataset, 1, 0, shuffle=True, seed=self.seed * 1_000_003)
        # A loader without its own generator draws a seed from torch's global one at each epoch.
        return ResumableLoader(
            dataset,
            batch_size=self.data.batch_size,
            sampler=sampler,
            collate_fn=self._collate,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        """Move the tensors of a batch; Lightning calls this."""
        return batch.to(device)

    def _collate(self, samples: Sequence[PairedSample]) -> Batch:
        columns: list[Any] = list(zip(*samples, strict=True))
        positions, items, retain, alternates = columns
        batch = collate(items, positions, self.encoder.pad_id)
        if self.retain is not None:
            batch.retain = collate(retain, positions, self.encoder.pad_id)
        if alternates[0] is not None:
            batch.alternate = collate(alternates, positions, self.encoder.pad_id)
        return batch
