"""Checkpoints from which a stopped run goes on with the same bits, and what signals do.

A run that is killed (SIGKILL, a crash, a full disk) goes on from its newest intact checkpoint and
repeats what came after it. There is one after the last epoch, and after each that ends a minute or
more after the one before (`run.checkpoint_every_n_seconds`); `run.checkpoint_every_n_steps` adds
some. A run that is asked to stop (Ctrl-C; SIGTERM, SIGUSR1: a
preempted or timed-out SLURM job) writes a checkpoint after the current step and raises `Preempted`.
The callbacks are added by `train.make_callbacks`; `resume` looks for the newest checkpoint.

What Lightning's own parts could not do:
- ModelCheckpoint (2.6.6, `every_n_train_steps=1`) writes the checkpoint of a step before the step's
  row is logged: with the checkpoint of step 3 on the disk, only the rows of steps 0 and 1 were. A
  run that goes on from there lacks a row. Here a checkpoint gets its name when its row is written.
  It also counts `train_time_interval` in the middle of epochs, not at their ends.
- The handling of SLURM's signals requeues the job by itself, also array tasks whose sweep is done,
  and saves in the middle of a step (Lightning-AI/pytorch-lightning issues 15022, 16639, 20542).
"""

import os
import re
import signal
import threading
import time
import zipfile
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback

from tif.config.schema import RunKeys
from tif.records import metrics_log
from tif.utils import distributed, interrupts
from tif.utils.files import os_errors_naming, remove, sync

SIGNALS = (signal.SIGTERM, interrupts.REQUEUE, signal.SIGINT)
NAME = re.compile(r"epoch=\d{1,15}-step=\d{1,15}\.ckpt$")


class Preempted(BaseException):
    """The run was asked to stop by `signal` after `step` optimizer steps, and can go on later.

    It may be raised anywhere. Like KeyboardInterrupt it is no Exception: code that tries whether a
    model can do something would take it for an answer. `stored_step`: steps before the checkpoint
    to go on from; None = there is none.
    """

    def __init__(self, number: int, step: int, stored_step: int | None) -> None:
        super().__init__(number, step, stored_step)
        self.signal, self.step, self.stored_step = signal.Signals(number), step, stored_step

    def __str__(self) -> str:
        where = f"stopped by {self.signal.name} at step {self.step}"
        if self.step in (0, self.stored_step):
            return f"{where}; the same command goes on from there"
        if self.stored_step is not None:
            return f"{where}; the same command goes on from step {self.stored_step}"
        return f"{where}; nothing is stored (run.keep_checkpoints=0), the same command starts over"


class Checkpoints(Callback):
    """Write a checkpoint after the last step of epochs, before their evaluation, and after steps.

    A checkpoint is a file `epoch=<finished epochs>-step=<optimizer steps>.ckpt`.

    Args:
        folder: of the checkpoints.
        settings: section `run`, which says how often one is written and how many of them stay.
        run: names the run by all that changes its numbers (`plan.name_result`).
    """

    def __init__(self, folder: Path, settings: RunKeys, run: str) -> None:
        self.folder, self.run = folder, run
        self.keep, self.every = settings.keep_checkpoints, settings.checkpoint_every_n_steps
        self.seconds = settings.checkpoint_every_n_seconds
        self._saved_at = 0.0  # time of the last checkpoint
        self._stored_step: int | None = None  # optimizer steps before it
        self._unsaved_epochs: int | None = None  # finished ones, since the last has no checkpoint
        self._batches_done = 0  # of the epoch, at the last checkpoint
        self._unnamed: tuple[Path, Path] | None = None  # (temporary path, path)
        self._received_signal: int | None = None
        self._is_in_step = False
        self._stops_before_next_step = False

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the epoch's data, and the run."""
        return {"batches": self._batches_done, "run": self.run}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the place in the epoch's data."""
        self._batches_done = state["batches"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Move the data to its place in the epoch, and listen to the signals.

        Lightning 2.6 would move the data itself, but not with a learning rate that depends on the
        number of steps: its `estimated_stepping_batches` begins to read the data before the
        checkpoint is loaded. When the training ends, Lightning restores the signals' handlers.
        """
        loader: Any = trainer.train_dataloader
        loader.load_state_dict({"given": self._batches_done})
        self._trainer = trainer
        self._saved_at = time.monotonic()
        self._stored_step = trainer.global_step if self.keep else None
        self._interrupted: Any = signal.getsignal(signal.SIGINT)  # what a second Ctrl-C does
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:  # a second one ends the run at once
            signal.signal(signal.SIGINT, self._interrupted)
        self._received_signal = number
        if not self._is_in_step:  # in an evaluation or the export
            self._stop()

    def _stop(self) -> None:
        number = self._received_signal or signal.SIGTERM
        raise Preempted(number, self._trainer.global_step, self._stored_step)

    def _is_asked_to_stop(self, trainer: L.Trainer) -> bool:
        """Return in all processes whether any of them got a signal."""
        has_signal = self._received_signal is not None
        return bool(trainer.strategy.reduce_boolean_decision(has_signal, all=False))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Name the last step's checkpoint, whose row is written now, and stop if asked to."""
        self._is_in_step, self._unsaved_epochs = True, None
        self._name_checkpoint()
        if self._stops_before_next_step:
            self._stop()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within the epoch, if a signal or `every` asks for it."""
        batches_done = batch_idx + 1
        if batches_done >= trainer.num_training_batches:
            return  # the end of the epoch saves
        self._stops_before_next_step = self._is_asked_to_stop(trainer)
        is_due = self.every is not None and trainer.global_step % self.every == 0
        if self._stops_before_next_step or is_due:
            self._save(trainer, trainer.current_epoch, batches_done)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the epoch if it is the last, or the last checkpoint is old enough."""
        self._unsaved_epochs = trainer.current_epoch + 1
        is_last = self._unsaved_epochs == trainer.max_epochs
        is_due = self.every is not None and trainer.global_step % self.every == 0
        is_late = time.monotonic() - self._saved_at >= self.seconds
        if is_last or is_due or trainer.strategy.reduce_boolean_decision(is_late, all=False):
            self._save_epoch(trainer)
        self._is_in_step = False
        if self._is_asked_to_stop(trainer):
            self._save_epoch(trainer)
            self._stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: Any, exception: BaseException
    ) -> None:
        """Save the epoch whose evaluation a signal stops.

        With several processes it is left out: they may have stopped in different places, and would
        wait for each other.
        """
        if isinstance(exception, Preempted) and trainer.world_size == 1:
            self._is_in_step = True  # another signal does not stop this
            self._save_epoch(trainer)
            exception.stored_step = self._stored_step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save no more: Lightning has counted the last epoch, which a resumed run must make."""
        self._unsaved_epochs = None

    def _save_epoch(self, trainer: L.Trainer) -> None:
        """Save the last epoch, unless that is done; its evaluation can be repeated from here."""
        if self._unsaved_epochs is not None:
            self._save(trainer, self._unsaved_epochs, 0)
            self._unsaved_epochs = None
            self._name_checkpoint()

    def _save(self, trainer: L.Trainer, epochs_done: int, batches_done: int) -> None:
        """Write a checkpoint under a temporary name."""
        self._batches_done = batches_done
        if not self.keep:
            return
        path = self.folder / f"epoch={epochs_done}-step={trainer.global_step}.ckpt"
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
        self._saved_at, self._stored_step = time.monotonic(), trainer.global_step

    def _name_checkpoint(self) -> None:
        """Give the last checkpoint its name, if it has none yet, and delete old checkpoints."""
        if self._unnamed is None:
            return
        unnamed, path = self._unnamed
        self._unnamed = None
        if not distributed.is_first_rank():
            return
        rows = self.folder.parent / metrics_log.FILE_NAME
        if rows.exists():  # the checkpoint counts on them
            sync(rows)
        remove(path)
        os.replace(unnamed, path)
        sync(self.folder)
        for old in list_checkpoints(self.folder)[self.keep :]:
            remove(old)


class StepSeeds(Callback):
    """Seed torch for each step from (seed, epoch, batch, process): dropout repeats after a stop."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Seed the step."""
        owner = (self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(owner).generate_state(1)[0]))


class DirectCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint straight to the disk; Lightning's makes a copy of it in memory first."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint file; OSError where the disk is full or gone."""
        try:
            with Path(path).open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except RuntimeError as error:  # torch raises this one while it handles the file's OSError
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, the newest first; unfinished ones are left out."""
    paths = [path for path in sorted(folder.glob("*.ckpt"), reverse=True) if NAME.match(path.name)]
    return sorted(paths, key=steps_done, reverse=True)


def steps_done(checkpoint: Path) -> int:
    """Return the number of optimizer steps before a checkpoint, from its name."""
    return int(checkpoint.stem.rpartition("=")[2])


def is_intact(checkpoint: Path, run: str) -> bool:
    """Return whether a checkpoint can be gone on from: complete, of its step, and of this run.

    Completeness is checked by the checksums of the file. `run`: see `Checkpoints`; checkpoints of
    older versions do not name theirs.
    """
    try:
        if not checkpoint.is_file():  # a device or a pipe: reading would not end
            return False
        with zipfile.ZipFile(checkpoint) as file:
            if file.testzip() is not None:
                return False
        # Mapped: the weights are not read. Foreign content raises any error here.
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        place = state["callbacks"][Checkpoints.__qualname__]
        return bool(state["global_step"] == steps_done(checkpoint) and place.get("run", run) == run)
    except Exception:
        return False
