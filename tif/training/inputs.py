"""Make what a run needs before it trains: stages, unwanted words, the retain model's records."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch

from tif.config.schema import Lora
from tif.data.encoding import Encoder
from tif.data.samples import Sample, fingerprint
from tif.evaluation.evaluate import describe_protocol, evaluate
from tif.evaluation.questions import EvaluationSetup, list_longest_texts, select_samples
from tif.identifiers import span_cache
from tif.identifiers.registration import get_kind
from tif.metrics import overall
from tif.models import load as models
from tif.probes.packed_rows import choose_batching
from tif.records import files as records
from tif.records import run_folder
from tif.records.run_folder import measured, read_times
from tif.training import plan as planning
from tif.training import resume
from tif.training.plan import Plan
from tif.training.stages import explain_new_stage, list_further_stages
from tif.training.train import train
from tif.utils import distributed, torch_state
from tif.utils.files import remove, remove_unfinished
from tif.utils.hashing import hash_json
from tif.utils.terminal import console, literal

MIXED_PRECISIONS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def list_steps(plan: Plan) -> Iterator[Callable[[Plan], None]]:
    """Yield what completes the plan of a run, in order: models, unwanted words, records."""
    cfg = plan.cfg
    names = list(plan.stages)
    if planning.wants_spans(cfg) and get_kind(cfg.identifier.kind).is_costly:
        # First, with no more stages than needed: a missing server shows before hours of training.
        first = planning.identifier_stages(cfg)
        yield from (partial(make_named_stage, name=name) for name in first)
        yield identify_unwanted_words
        names = [name for name in names if name not in first]
    yield from (partial(make_named_stage, name=name) for name in names)
    if planning.wants_forget_quality(cfg):
        yield evaluate_retain_model
    if cfg.model.path in plan.stages:
        yield start_from_stage
    yield from (partial(make_further_stage, name=name) for name in list_further_stages(cfg.loss))


def make_named_stage(plan: Plan, name: str) -> None:
    """Make a stage of the run."""
    folder = make_stage(plan.stages[name])
    plan.stage_folders[name] = folder
    plan.seconds[f"stage {name}"] = sum(read_times(folder).values())


def identify_unwanted_words(plan: Plan) -> None:
    """Label the forget samples by an identifier that asks models, unless its spans are stored."""
    cfg, forget = plan.cfg, plan.benchmark.forget
    identifier = span_cache.with_stage_models(planning.identifier_of(cfg), plan.stage_folders)
    folder = Path(cfg.run.folder) / "spans"

    def identify() -> tuple[Sample, ...]:
        return span_cache.identify_once(identifier, forget, cfg.data.prompts, folder)

    with measured(plan.seconds, "identification"):
        labelled = distributed.run_on_first_rank(identify)
    plan.span_file = span_cache.span_path(identifier, forget, cfg.data.prompts, folder)
    plan.benchmark = dataclasses.replace(plan.benchmark, forget=labelled)


def evaluate_retain_model(plan: Plan) -> None:
    """Make the retain model's records, unless the plan has read them from a file."""
    cfg = plan.cfg
    if cfg.eval.retain_records in plan.stage_folders:
        folder = plan.stage_folders[cfg.eval.retain_records]
        model = str(folder / "model")
    elif cfg.eval.retain_model:
        folder, model = planning.retain_model_folder(cfg), cfg.eval.retain_model
        folder.mkdir(parents=True, exist_ok=True)
    else:
        return
    with measured(plan.seconds, "retain model's evaluation"):
        plan.retain_records = retain_model_records(plan, model, folder)


def start_from_stage(plan: Plan) -> None:
    """Let the run start from the model of a stage."""
    path = str(plan.stage_folders[str(plan.cfg.model.path)] / "model")
    plan.cfg = dataclasses.replace(plan.cfg, model=dataclasses.replace(plan.cfg.model, path=path))


def make_further_stage(plan: Plan, name: str) -> None:
    """Make a stage that trains the run's own model further."""
    plan.stage_folders[name] = make_stage(planning.plan_further_stage(plan, name))


def make_stage(plan: Plan) -> Path:
    """Return the folder of a stage's finished run; train the stage unless it is there already.

    Safe when several processes call at once: one makes the stage, the others wait.
    """
    cfg, folder, title = plan.cfg, plan.folder, f"stage {plan.stage}"

    def find_checkpoint() -> Path | None:
        if run_folder.has_config(folder, resume.config_text(cfg)):
            return resume.find_newest_checkpoint(folder, cfg)
        if why := explain_new_stage(cfg, folder):
            console.print(f"{title}: {why}", soft_wrap=True)
        return None

    def is_made() -> bool:
        if not run_folder.is_finished(folder):
            return False
        damage = run_folder.find_damaged_model(folder)
        if damage:
            console.print(f"{damage}: {title} is made again", soft_wrap=True)
            for name in (run_folder.SUMMARY_FILE, "checkpoints"):
                remove(folder / name)
        return damage is None

    folder.parent.mkdir(parents=True, exist_ok=True)
    with distributed.locked_on_first_rank(f"{folder}.lock", title):
        if distributed.run_on_first_rank(is_made):
            console.print(f"{title}: {folder}", literal("(made before)", "dim"), soft_wrap=True)
            return folder
        train(plan, folder, distributed.run_on_first_rank(find_checkpoint), cfg)
        if distributed.is_first_rank():
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return folder


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
