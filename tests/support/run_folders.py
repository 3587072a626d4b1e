"""Run folders without a training: claimed and started as `tif.training.run` does it."""

from omegaconf import OmegaConf

from tests.support.small_run import SMALL
from tif.config import load as config
from tif.records import run_folder
from tif.training import resume
from tif.training.plan import plan_run


def claimed(cfg):
    """Hold the folder that a run of this configuration gets, as a context manager."""
    return resume.claim_run_folder(cfg)


def start(folder, cfg):
    """Write what a run of this configuration begins with."""
    run_folder.start_run(folder, resume.config_text(cfg))


def check_folder(cfg):
    """Check whether the run's folders can be written to."""
    resume.check_run_folder(cfg)


def stage_folders(*words):
    """Return the name of each stage's folder that the small run with these words needs."""
    plan = plan_run(config.load(["quickstart.yaml", *SMALL, *words]))
    return {name: stage.folder.name for name, stage in plan.stages.items()}


def rewrite(folder, *words):
    """Set keys in a run's config.yaml, as an editor does."""
    path = folder / "config.yaml"
    content = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(list(words)))
    path.write_text(OmegaConf.to_yaml(content))
