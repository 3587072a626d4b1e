"""The logger of Weights & Biases (`logger.wandb.enabled`). Opened by `run.train`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from tif.config.schema import Wandb


@contextlib.contextmanager
def wandb_log(settings: Wandb, folder: Path, config: dict[str, Any]) -> Iterator[list[Logger]]:
    """Give the W&B logger in a list, which is empty where none is wanted.

    Its W&B run ends with the block, as failed after an error: a process makes several runs (stages
    and the run itself), and each has a W&B run of its own.

    Args:
        settings: section `logger.wandb`.
        folder: of the run; its name is the W&B run's.
        config: all keys of the run, shown by W&B.
    """
    if not settings.enabled:
        yield []
        return
    from lightning.pytorch.loggers import WandbLogger

    logger = WandbLogger(
        folder.name,
        folder,
        project=settings.project,
        entity=settings.entity,
        offline=settings.offline,
    )
    logger.experiment.config.update(config)
    try:
        yield [logger]
    except BaseException:
        logger.experiment.finish(1)
        raise
    logger.experiment.finish()
