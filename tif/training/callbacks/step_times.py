"""Measures how long the optimizer steps take. Added by `train.make_callbacks`."""

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from tif.records.run_times import add_times


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
