"""The retain model's records under the rules of a run. Called by `training/run`."""

import dataclasses
from contextlib import nullcontext
from pathlib import Path

import torch

from tif.config.model import Lora
from tif.data.encoding import Encoder
from tif.data.samples import fingerprint
from tif.evaluation.evaluate import describe_protocol, evaluate
from tif.evaluation.questions import EvaluationSetup, list_longest_texts, select_samples
from tif.metrics import overall
from tif.models import load as models
from tif.probes.packed_rows import choose_batching
from tif.records import files as records
from tif.training.plan import Plan
from tif.utils import distributed, torch_state
from tif.utils.files import remove_unfinished
from tif.utils.hashing import hash_json
from tif.utils.terminal import console

MIXED_PRECISIONS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def retain_model_records(plan: Plan, path: str, stage: Path) -> records.Evaluation:
    """Return the records of the retain model at `path`, a folder or hub name.

    Made once for each set of rules, in <stage>/eval/<hash>, in the precision of the policy's.
    """
    cfg, benchmark = plan.cfg, plan.benchmark
    model = dataclasses.replace(cfg.model, path=path, lora=Lora(), quantize="none")
    encoder = Encoder(models.load_tokenizer(model, ()), cfg.data.prompts, cfg.data.overlap)
    sets = select_samples(benchmark.sets, cfg.eval, benchmark.tasks)
    rules = describe_protocol(cfg.eval, encoder, benchmark.tasks)
    prints = [fingerprint(samples) for samples in sets.values()]
    folder = stage / "eval" / hash_json([rules, cfg.trainer.precision, *prints])
    with distributed.locked_on_first_rank(f"{stage}.lock", "records of the retain model"):
        if distributed.is_first_rank():
            remove_unfinished(folder)
        if distributed.run_on_first_rank(lambda: records.is_stored(folder)):
            return records.read_evaluation(folder)
        console.print("evaluating the retain model")
        with torch_state.seeded(cfg.run.seed):
            policy = models.load_policy(model, encoder.tokenizer, cfg.run.seed)
        device = distributed.select_device(cfg.trainer.accelerator)
        policy.to(device)
        texts, wanted = list_longest_texts(encoder, benchmark.sets), cfg.data.batching
        dtype = MIXED_PRECISIONS.get(cfg.trainer.precision)
        with torch.autocast(device.type, dtype) if dtype else nullcontext():
            batching = distributed.run_on_first_rank(
                lambda: choose_batching(wanted, policy, texts)
            )
            setup = EvaluationSetup(encoder, cfg.eval, batching, benchmark.tasks)
            evaluated = evaluate(policy, benchmark.sets, setup, str(stage))
        if distributed.is_first_rank():
            records.write_evaluation(folder, evaluated, overall.aggregate(evaluated))
    return evaluated
