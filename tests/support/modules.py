"""Training modules and data modules from a configuration, as `tif.training.run` makes them."""

from tif.data.encoding import Encoder
from tif.training.datamodule import UnlearningDataModule
from tif.training.module import StepSettings, UnlearningModule


def step_settings(cfg, batching="packed"):
    """The sections of a configuration that a step reads."""
    return StepSettings(cfg.data, cfg.loss, cfg.optimizer, cfg.trainer, batching)


def unlearning_module(policy, cfg, batching="packed", reference=None):
    """A module whose reference is there already."""
    return UnlearningModule(policy, step_settings(cfg, batching), reference)


def data_module(cfg, benchmark, tokenizer, alternates=None):
    """A data module with an encoder of its own."""
    encoder = Encoder(tokenizer, cfg.data.template, cfg.data.overlap)
    return UnlearningDataModule(benchmark, encoder, cfg.data, cfg.loss, cfg.run.seed, alternates)
