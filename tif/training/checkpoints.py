"""Checkpoints that a killed run goes on from with the same bits, and what a signal does.

A run is killed at any moment (SIGKILL, a crash, a full disk): it goes on from the newest whole checkpoint, one an epoch
or more (`run.checkpoint_every_n_steps`), and does again what came after it. It is asked to stop (SIGTERM, SIGUSR1: a
preempted or timed-out SLURM job): it writes a checkpoint after the step it is in, then stops with `Preempted`.

Lightning's own handling of SLURM's signals is not used: it requeues the job by itself, also array tasks whose sweep is
done, and writes its checkpoint in the middle of a step (Lightning-AI/pytorch-lightning issues 15022, 16639, 20542).
Lightning's ModelCheckpoint is not either: within an epoch it saves before the step's row is logged.
"""

import json
import os
import shutil
import signal
import threading
import zipfile
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback

from tif.utils import distributed
from tif.utils.files import os_errors_naming, sync_folder, write_text

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
SIZES = "sizes.json"  # of a checkpoint that is a folder of shards


class Preempted(Exception):
    """The run was asked to stop and can go on later.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(number, step)
        self.signal, self.step = signal.Signals(number), step

    def __str__(self) -> str:
        return f"stopped by {self.signal.name} at step {self.step}; the same command goes on from there"


class Checkpoints(Callback):
    """Writes a checkpoint when an epoch's last step is done (before its evaluation), and within it where asked.

    Within an epoch it is written after a step and gets its name when the step's row is in metrics.jsonl.

    Args:
        folder: of the checkpoints; there are `epoch=<finished epochs>-step=<optimizer steps>.ckpt`, files, or folders
            where the strategy saves shards.
        keep: how many of the newest stay; 0 writes none.
        every: optimizer steps between two within an epoch; None = none but on a signal.
    """

    def __init__(self, folder: Path, keep: int, every: int | None) -> None:
        self.folder, self.keep, self.every = folder, keep, every
        self._signal: int | None = None
        self._batches = 0  # of the epoch, before the last checkpoint
        self._stop = self._stepping = False
        self._unnamed: tuple[Path, Path] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Where in the epoch the data was."""
        return {"batches": self._batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The same."""
        self._batches = state["batches"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to the signals, instead of Lightning, which puts back what it found when it ends.

        And let the data go on: Lightning 2.6 would, but not where a learning rate depends on the number of steps, since
        its `estimated_stepping_batches` begins to read the data before a checkpoint is loaded.
        """
        loader: Any = trainer.train_dataloader
        loader.load_state_dict({"given": self._batches})
        self._trainer = trainer
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        if not self._stepping:  # an evaluation or the export: the last step is on the disk already
            self._leave()

    def _leave(self) -> None:
        raise Preempted(self._signal or signal.SIGTERM, self._trainer.global_step)

    def _asked_to_stop(self, trainer: L.Trainer) -> bool:
        """Whether any process was; the same answer in all."""
        return bool(trainer.strategy.reduce_boolean_decision(self._signal is not None, all=False))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The last step's row is written: give its checkpoint its name, and stop where that was asked."""
        self._stepping = True
        if self._unnamed:
            self._name(*self._unnamed)
        if self._stop:
            self._leave()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within the epoch, where a signal or `every` asks for it and gradients are not half collected."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches or batch_idx + 1 >= trainer.num_training_batches:
            return
        self._stop = self._asked_to_stop(trainer)
        if self._stop or (self.every and trainer.global_step % self.every == 0):
            self._save(trainer, trainer.current_epoch, batch_idx + 1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the epoch; its evaluation comes after, and can be made again from here."""
        self._save(trainer, trainer.current_epoch + 1, 0)
        if self._unnamed:
            self._name(*self._unnamed)
        self._stepping = False
        if self._asked_to_stop(trainer):
            self._leave()

    def _save(self, trainer: L.Trainer, epochs: int, batches: int) -> None:
        self._batches = batches
        if not self.keep:
            return
        path = self.folder / f"epoch={epochs}-step={trainer.global_step}.ckpt"
        unnamed = path.with_name(f".{path.name}.unfinished")
        if distributed.is_first_rank():
            remove(unnamed)
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with os_errors_naming(path):
                trainer.save_checkpoint(unnamed)
        except BaseException:
            remove(unnamed)  # on a full disk, the next try needs the room
            raise
        self._unnamed = unnamed, path

    def _name(self, unnamed: Path, path: Path) -> None:
        self._unnamed = None
        distributed.barrier()  # all shards are written
        if distributed.is_first_rank():
            if unnamed.is_dir():
                write_text(unnamed / SIZES, json.dumps(_sizes(unnamed)))
            remove(path)
            os.replace(unnamed, path)
            sync_folder(self.folder)
            for old in listed(self.folder)[self.keep :]:
                remove(old)


class Seeds(Callback):
    """torch's random state of each step from (seed, epoch, batch, process): dropout is the same after a resume."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set it."""
        owner = (self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(owner).generate_state(1)[0]))


class File(TorchCheckpointIO):
    """A checkpoint straight to the disk; Lightning's own makes a second copy of it in memory first."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write it.

        Raises:
            OSError: If the disk is full or gone.
        """
        try:
            with Path(path).open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except RuntimeError as error:  # torch's, after the file's own
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def listed(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest first; unfinished ones have no place in it."""
    return sorted(folder.glob("epoch=*-step=*.ckpt"), key=lambda path: (step(path), path.name), reverse=True)


def step(checkpoint: Path) -> int:
    """Optimizer steps that it has seen."""
    return int(checkpoint.stem.rpartition("=")[2])


def is_whole(checkpoint: Path) -> bool:
    """Whether all of it is there: a file's checksums fit (torch.save writes one a tensor), shards have their size."""
    try:
        if checkpoint.is_dir():
            return bool(json.loads((checkpoint / SIZES).read_text(encoding="utf-8")) == _sizes(checkpoint))
        with zipfile.ZipFile(checkpoint) as file:
            return file.testzip() is None
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def remove(path: Path) -> None:
    """Delete a checkpoint, file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sizes(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.name != SIZES}
