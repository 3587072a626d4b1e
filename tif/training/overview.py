"""What a run will do, known before weights load: its first line and its number of optimizer steps.

Called by `training/run` and `bench/estimate`.
"""

import math

from tif.config.presets import data_name, method_name, model_name
from tif.data.benchmarks import list_tokenizer_texts, select_training_samples
from tif.data.encoding import Encoder, split_into_pieces
from tif.models import load as models
from tif.training.plan import Plan


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
    chat = ["questions in its chat template"] if cfg.data.prompts.is_chat else []
    parts = [f"model: {start}", *chat, f"method: {method}", f"{steps:,} optimizer steps planned"]
    return ", ".join([f"preset: {preset}", *parts] if preset else parts)


def count_steps(plan: Plan) -> int:
    """Return the optimizer steps of a run that trains to its end.

    A step is taken on each batch of `data.batch_size` samples, an epoch's last one with those that
    are left. Long samples count as their pieces. Neither devices nor the parts in which a batch is
    scored change the number. A run that `eval.stop_on` ends makes fewer.
    """
    data = plan.cfg.data
    encoder = make_encoder(plan)
    count = 0
    for sample in select_training_samples(plan.benchmark, data.train, data.request):
        count += len(split_into_pieces(encoder.encode(sample), data.max_tokens))
    return plan.cfg.trainer.max_epochs * math.ceil(count / data.batch_size)


def make_encoder(plan: Plan) -> Encoder:
    """Return the encoder that the run will train with, also where its tokenizer is yet to be made.

    A new model's tokenizer learns from the samples of the stage that makes it.
    """
    start, data = plan, plan.cfg.data
    while start.cfg.model.path in start.stages:
        start = start.stages[str(start.cfg.model.path)]
    if start.encoder is not None:
        tokenizer = start.encoder.tokenizer
    else:
        texts = list_tokenizer_texts(start.benchmark, start.cfg.data.prompts)
        tokenizer = models.load_tokenizer(start.cfg.model, texts)
    return Encoder(tokenizer, data.prompts, data.overlap)
