"""Writes the trained policy to <run>/model when training ends. Added by `run.make_callbacks`."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from tif.data.encoding import Encoder
from tif.models import export
from tif.training.module import UnlearningModule


class Export(Callback):
    """Write the policy in Hugging Face format when the training is over.

    Args:
        folder: the run's; the policy goes to <folder>/model.
        encoder: its tokenizer is written with the policy.
        make_card: returns the text of the model's README.md; called once, in the first process.
        merge: with LoRA, write one plain model; False = the adapters alone.
    """

    def __init__(
        self, folder: Path, encoder: Encoder, make_card: Callable[[], str], merge: bool = True
    ) -> None:
        self.folder, self.encoder, self.make_card, self.merge = folder, encoder, make_card, merge

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the model, also where a resumed run finds all epochs done.

        All processes call, since they may hold shards.
        """
        assert isinstance(pl_module, UnlearningModule)
        with pl_module.unlearned() as policy:
            card = self.make_card() if trainer.is_global_zero else ""
            export.export_model(policy, self.encoder.tokenizer, self.folder / "model", card, self.merge)
        trainer.strategy.barrier("export")
