"""What a run says first: preset, model, method, planned steps. Called by `training/run`."""

from tif.config.presets import data_name, method_name, model_name
from tif.training.plan import Plan
from tif.training.steps import count_steps


def describe_start(plan: Plan, preset: str) -> str:
    """Return a run's first line.

    Args:
        plan: of the run, or of the stage that is made alone.
        preset: the files and the model's preset that its configuration comes from; "" = unnamed.
    """
    cfg, model = plan.cfg, plan.cfg.model
    start = model_name(cfg) if model.path in plan.stages else model.path
    if start in (None, "new"):
        start = f"a new {model.init.get('model_type', 'Llama')}"
    if model.path in plan.stages:
        start += f" (stage {model.path})"
    method = f"{method_name(cfg.loss, cfg.data.train)} on {data_name(cfg)}"
    steps = count_steps(plan)
    parts = [f"model: {start}", f"method: {method}", f"{steps:,} optimizer steps planned"]
    return ", ".join([f"preset: {preset}", *parts] if preset else parts)
