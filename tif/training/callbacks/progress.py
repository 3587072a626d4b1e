"""The progress of a training, a bar or lines in a log, and how long its steps take."""

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar

from tif.records.run_folder import add_times
from tif.training.module import UnlearningModule
from tif.utils import terminal


class TrainingBar(ProgressBar):
    """Show one bar over all steps, with the last step's loss and its parts.

    Where the output is no terminal, a line is printed after each epoch instead.

    Lightning's RichProgressBar was tried: it starts a new bar with each epoch, prints that bar into
    files that are no terminal (a SLURM job's log), and clears other bars from the console, such as
    those of an evaluation, which stand below this one.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title

    def disable(self) -> None:
        """Do nothing: Lightning disables it where `terminal.silence` has done so already."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar at the step where the training starts or goes on."""
        total = int(trainer.num_training_batches) * int(trainer.max_epochs or 1)
        self._context = terminal.progress_bar(self.title, total)
        self._bar = self._context.__enter__()
        self._bar.advance(trainer.fit_loop.total_batch_idx + 1)
        self._first_epoch = trainer.current_epoch
        self._start, self._made_a_step = time.monotonic(), False

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        """Start the clock with the first step, after the evaluation before training.

        Not with the first epoch: a run that goes on within an epoch does not start one.
        """
        if not self._made_a_step:
            self._start, self._made_a_step = time.monotonic(), True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        """Advance by one step and show its loss."""
        assert isinstance(pl_module, UnlearningModule)
        note = f"epoch {trainer.current_epoch + 1}"
        for name, value in pl_module.step_values.items():
            note += f"  {name.removeprefix('train/')} {value.item():.3f}"
        self._bar.advance(note=note)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Print a line into a log: the epoch, its last step's loss, and how long it still takes."""
        console = terminal.console
        if console.is_terminal:
            return
        epoch, last = trainer.current_epoch + 1, int(trainer.max_epochs or 1)
        seconds = (time.monotonic() - self._start) / (epoch - self._first_epoch)
        times = f"{terminal.describe_seconds(seconds)} an epoch"
        if epoch < last:
            times += f", {terminal.describe_seconds(seconds * (last - epoch))} left"
        loss = pl_module.step_values["train/loss"].item()
        line = f"{self.title}: epoch {epoch} of {last}, loss {loss:.3f}"
        console.print(line, terminal.literal(f"({times})", "dim"), soft_wrap=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self._context.__exit__(None, None, None)

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Close the bar, so that the error stands alone."""
        if hasattr(self, "_context"):
            self.on_train_end(trainer, pl_module)


class StepTimes(Callback):
    """Add the time of the steps to the run's times.json, after each epoch and where it ends early.

    Evaluations, exports and checkpoints do not count.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.seconds, self._start = folder, 0.0, 0.0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        """Remember when the step began."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        """Count the step."""
        self.seconds += time.perf_counter() - self._start

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write what was counted since the last time."""
        add_times(self.folder, {"training": self.seconds})
        self.seconds = 0.0

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Write what was counted before the error or the signal."""
        if self.seconds:
            self.on_train_epoch_end(trainer, pl_module)
