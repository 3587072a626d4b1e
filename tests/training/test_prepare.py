"""Placing a model before a run trains it."""

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.tensor import DTensor

from tests.support import tiny_models
from tif.training.prepare import place_model
from tif.utils import distributed


def test_one_process_alone_has_its_shards_too(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    model, ids = tiny_models.model(), torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        strategy=ModelParallelStrategy(1, 1),
        plugins=distributed.lightning_plugins(),
        logger=False,
        enable_checkpointing=False,
    )
    try:
        place_model(model, trainer)
        assert all(isinstance(weight, DTensor) for weight in model.parameters())
        torch.testing.assert_close(model(input_ids=ids).logits, expected)
    finally:
        torch.distributed.destroy_process_group()
