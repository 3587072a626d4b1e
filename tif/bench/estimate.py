"""What a run will need: steps, tokens, memory and disk, from its plan and config.json alone.

Called by `tif fit --print`, which shows it as comments below the configuration. No weights load.
"""

import dataclasses

from tif.bench.memory import Need, estimate_training
from tif.config.schema import Config
from tif.data.samples import select_training_samples
from tif.evaluation.prompt_format import comment_on_missing_download, find_first_model
from tif.models.load import read_config
from tif.training import plan as planning
from tif.training.plan import Plan, count_steps, make_encoder
from tif.training.prepare import choose_reference
from tif.utils import distributed
from tif.utils.terminal import quiet_libraries

CPU_TOKENS, GPU_TOKENS = 512, 4096  # of data.max_tokens_per_batch=null


def describe_needs(cfg: Config) -> list[str]:
    """Return as comments what a run will need, or what is to be downloaded.

    Raises:
        ConfigError: If the run cannot be made.
    """
    quiet_libraries()
    try:
        plan = planning.plan_stage(cfg, cfg.stage) if cfg.stage else planning.plan_run(cfg)
        tokens, epochs = count_tokens(plan), plan.cfg.trainer.max_epochs
        steps = [f"{count_steps(plan):,} optimizer steps"]
        steps += [f"stage {name} {count_steps(stage):,}" for name, stage in plan.stages.items()]
        return [
            "# What the run will need:",
            f"#   steps:  {', '.join(steps)}",
            f"#   tokens: {tokens:,} an epoch of training, {tokens * epochs:,} in {epochs} epochs",
            *_describe_bytes(plan, tokens),
        ]
    except (OSError, ValueError) as error:
        return [comment_on_missing_download("what the run will need", error)]


def count_tokens(plan: Plan) -> int:
    """Return the tokens of an epoch of training, prompts and retain samples included.

    A retain sample stands beside each forget sample; it counts with their mean length.
    """
    data, encoder = plan.cfg.data, make_encoder(plan)
    samples = select_training_samples(plan.benchmark, data.train, data.request)
    tokens = sum(len(encoder.encode(sample).input_ids) for sample in samples)
    retain = plan.benchmark.retain
    if data.train == "forget" and plan.cfg.loss.retain != "none" and retain:
        lengths = [len(encoder.encode(sample).input_ids) for sample in retain]
        tokens += len(samples) * sum(lengths) // len(lengths)
    return tokens


def estimate_memory(cfg: Config, most_tokens: int) -> Need:
    """Return the bytes that a step needs on one device, a frozen reference among its weights.

    `most_tokens`: a step holds no more at once, whatever data.max_tokens_per_batch says.
    """
    model, trainer = cfg.model, cfg.trainer
    if trainer.precision == "bf16-true":  # Lightning converts the weights
        model = dataclasses.replace(model, dtype="bfloat16")
    is_on_cpu = distributed.select_device(trainer.accelerator).type == "cpu"
    tokens = cfg.data.max_tokens_per_batch or (CPU_TOKENS if is_on_cpu else GPU_TOKENS)
    gpus = 1
    if trainer.strategy == "fsdp2" and trainer.devices.isdigit():
        gpus = int(trainer.devices)
    is_mixed = trainer.precision.endswith("-mixed")
    config = read_config(find_first_model(cfg))
    need = estimate_training(config, model, is_mixed, gpus, min(tokens, most_tokens))
    if choose_reference(model, cfg.loss, cfg.data.train) == "frozen":
        need = need._replace(weights=2 * need.weights)
    return need


def _describe_bytes(plan: Plan, tokens: int) -> list[str]:
    model, run, evaluation = plan.cfg.model, plan.cfg.run, plan.cfg.eval
    need = estimate_memory(plan.cfg, tokens)
    exported = need.weights if model.lora.merge or not model.lora.rank else need.gradients
    files = {"checkpoints": run.keep_checkpoints * 3 * need.gradients}
    if run.export:
        files["model"] = exported
        if evaluation.enabled and evaluation.best != "none":
            files["model_best"] = exported
    files |= {f"stage {name}": need.weights for name in plan.stages}
    names = ("weights", "gradients", "AdamW", "activations", "gathered by FSDP2")
    lines = []
    for title, end, sizes in (
        ("memory:", "a device", dict(zip(names, need, strict=True))),
        ("disk:  ", "at most", files),
    ):
        parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in sizes.items() if size)
        lines.append(f"#   {title} {format_bytes(sum(sizes.values()))} {end} ({parts})")
    return lines


def format_bytes(size: float) -> str:
    """Return a size as "1.3 GB" or "45 MB" (10^9, 10^6 bytes)."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
