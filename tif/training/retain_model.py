"""The retain model's records under the rules of a run. Called by `run.unlearn`."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import torch

from tif.config.model import Lora
from tif.config.schema import Data, Eval, Model, TrainerKeys
from tif.data.encoding import Encoder
from tif.data.samples import Benchmark, fingerprint
from tif.evaluation.evaluate import describe_protocol, evaluate
from tif.evaluation.questions import EvaluationSetup, select_samples
from tif.metrics import overall
from tif.models import load as models
from tif.records import files as records
from tif.scoring.batching import choose_batching
from tif.utils import distributed, torch_state
from tif.utils.hashing import hash_json
from tif.utils.terminal import console


def retain_model_records(
    stage: Path,
    benchmark: Benchmark,
    model: Model,
    data: Data,
    settings: Eval,
    trainer: TrainerKeys,
) -> records.Evaluation:
    """Return the retain stage's records; made once for each set of rules, in <stage>/eval/<hash>.

    Args:
        stage: folder of the retain model's run.
        benchmark: what both models are asked.
        model: section `model` of the run; the retain model itself is a plain one.
        data: section `data`, for templates and batching.
        settings: section `eval`.
        trainer: section `trainer`; the policy's records are made in the same precision.
    """
    path = str(stage / "model")
    plain_model = dataclasses.replace(model, path=path, lora=Lora(), quantize="none")
    encoder = Encoder(models.load_tokenizer(plain_model, ()), data.template, data.overlap)
    sets = select_samples(benchmark.sets, settings, benchmark.tasks)
    rules = describe_protocol(settings, encoder, benchmark.tasks)
    prints = [fingerprint(samples) for samples in sets.values()]
    folder = stage / "eval" / hash_json([rules, trainer.precision, *prints])
    with distributed.locked_on_first_rank(f"{stage}.lock", "records of the retain model"):
        if distributed.run_on_first_rank((folder / records.AGGREGATES).exists):
            return records.read_evaluation(folder)
        console.print("evaluating the retain model")
        with torch_state.seeded(0):  # nothing is drawn, and the global random state stays as it is
            policy = models.load_policy(plain_model, encoder.tokenizer, seed=0)
        device = distributed.select_device(trainer.accelerator)
        policy.to(device)
        batching = choose_batching(data.batching, policy)
        setup = EvaluationSetup(encoder, settings, batching, benchmark.tasks)
        with _mixed_precision(trainer.precision, device):
            evaluated = evaluate(policy, benchmark.sets, setup, str(stage))
        if distributed.is_first_rank():
            records.write_evaluation(folder, evaluated, overall.aggregate(evaluated))
    return evaluated


def _mixed_precision(
    precision: str, device: torch.device
) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which forwards run as under Lightning's mixed precision of that name."""
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()
