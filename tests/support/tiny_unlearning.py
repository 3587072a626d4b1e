"""UnlearningModule and a real Lightning Trainer on a tiny Llama and batches made by hand."""

import dataclasses
import functools

import lightning as L
from torch.utils.data import DataLoader

from tests.support import tiny_models
from tests.support.model_weights import weights
from tests.support.modules import unlearning_module
from tests.support.tiny_models import shuffled
from tif.config import load
from tif.config.schema import Config, Optimizer, TrainerKeys
from tif.losses import make_loss
from tif.losses.distributions import Rmu
from tif.models import references


class Watch(L.Callback):
    """Notes mode, learning rate, logged values and weights at every step."""

    def __init__(self):
        self.training, self.lrs, self.logged, self.before = [], [], [], None

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.before = weights(module.policy)
        self.lrs.append(trainer.optimizers[0].param_groups[0]["lr"])
        module.policy.register_forward_hook(lambda m, *_: self.training.append(m.training))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})


def config(**keys):
    """Return a configuration; `keys` are sections `loss` and `optimizer`, or keys of `trainer`."""
    loss = keys.pop("loss", make_loss(beta=0.3))
    optimizer = keys.pop("optimizer", Optimizer(lr=1e-2, warmup_epochs=0))
    return Config(
        loss=loss,
        optimizer=optimizer,
        trainer=TrainerKeys(**{"max_epochs": 1, "accelerator": "cpu"} | keys),
    )


def fit(module, batches, *callbacks, folder=None, **keys):
    """Train the module on the batches and return the trainer."""
    settings = dataclasses.asdict(module.settings.trainer) | {"devices": 1} | keys
    del settings["gradient_clip_val"]  # the module clips
    trainer = L.Trainer(
        **settings,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader(batches, batch_size=None, shuffle=False))
    return trainer


def unlearning(kind="cached", policy=None, batching="packed", **keys):
    """Return a training module with a reference of that kind."""
    policy = policy or tiny_models.model()
    reference = (
        references.make_reference(kind, policy, tiny_models.ITEMS, 0, batching) if kind else None
    )
    return unlearning_module(policy, config(**keys), batching, reference)


BATCHES = [shuffled((0, 2)), shuffled((3, 1))]

RETAIN = [tiny_models.encoded(f"r{i}", "ppgggg"[: 4 + i % 3]) for i in range(4)]


def cfg_of(name, **keys):
    """Return section `loss` of configs/loss/<name>.yaml with other values for some keys."""
    return dataclasses.replace(_read_loss(name), rmu=Rmu(layer=0, scale=2.0, seed=3), **keys)


@functools.cache
def _read_loss(name):
    return load.load(
        [f"loss/{name}.yaml", "eval.forget_quality=false", "model.path=org/model"]
    ).loss
