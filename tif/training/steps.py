"""How many optimizer steps a run takes, known before weights load. Called by `training/run`."""

import math

from tif.data.benchmarks import list_tokenizer_texts, select_training_samples
from tif.data.encoding import Encoder, split_into_pieces
from tif.models import load as models
from tif.training.plan import Plan


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
