"""tif evaluate: evaluate a model on TOFU, MUSE, your own texts and lm-eval's tasks.

    tif evaluate model.path=MODEL [eval.benchmarks=tofu,muse-news,lm-eval:mmlu]
                 [retain_model=MODEL] [--json | --print]
    tif evaluate records=LOG [retain_records=RETAIN] [allow_mismatch=true] [--json]
    tif evaluate --metrics
    tif evaluate --help [section ... | all]

MODEL is any Hugging Face causal LM, a folder or a hub name. Its records are stored in `out`, and an
evaluation that is there already is read instead of made again. With several devices:
`torchrun --nproc-per-node N -m tif.evaluate ...`.

LOG and RETAIN are evaluations of a model and of the retain model: the eval/<epoch> folder of a run,
a folder that this command wrote, the eval_log_aggregated.json of locuslab/tofu, NPO or the TIF
release, or open-unlearning's TOFU_EVAL.json. They need no model and no GPU.

    --print     print the keys and how the first sample is read; evaluate nothing
    --metrics   print what each metric means: formula, range, which way is better, and its value
                after a perfect unlearning

JSON of TOFU's records: {"model_utility", "forget_quality", "tasks": {set: {metric: mean}},
"intervals" (the same, [low, high]), ...}; of MUSE's: {"metrics": {name: value}, "intervals", ...};
of a model: {"model", "benchmarks": {name: the same}}. "combined": what follows
from several of them, as forget/as_unread. null = there is no value.
Every number has a 95 % interval over authors, documents or questions (tif/metrics/intervals.py).
"""

import dataclasses
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tif.config import load as config
from tif.config.command import Command
from tif.config.command_keys import Evaluate
from tif.config.errors import ConfigError
from tif.utils import command_line, distributed

if TYPE_CHECKING:
    from tif.records.types import AnswersBySet, Evaluation


def evaluate(options: Namespace) -> Any:
    """Evaluate what the words name; return the content of `--json`."""
    if options.metrics:
        from tif.metrics.registry import cards_as_text

        command_line.print_text(cards_as_text())
        return None
    cfg = config.read(Evaluate, options.words)
    if options.print:
        from tif.evaluation.prompt_format import describe_evaluation

        command_line.print_configuration(config.to_yaml(cfg), describe_evaluation(cfg))
        return None
    if cfg.logger.wandb.enabled:
        from tif.training.checks import check_wandb

        check_wandb(cfg.logger.wandb)
    if cfg.records:
        results = evaluate_records(cfg)
    else:
        with command_line.loading():
            from tif.evaluation.model_numbers import evaluate_model
        distributed.start(cfg.device)
        results = evaluate_model(cfg)
    if not distributed.is_first_rank():
        return None
    if cfg.logger.wandb.enabled:
        _log_to_wandb(cfg, results)
    if options.json:
        return results
    from tif.reports.evaluation import show_evaluation

    show_evaluation(results)
    return None


def evaluate_records(cfg: Evaluate) -> dict[str, Any]:
    """Read recorded evaluations and return all their numbers: the content of `--json`.

    Raises:
        ConfigError: With one line for each bad input.
    """
    problems: list[str] = []
    evaluation = _read_evaluation("records", cfg.records, problems)
    retain = _read_evaluation("retain_records", cfg.retain_records, problems)
    if problems or evaluation is None:
        raise ConfigError("\n".join(problems))
    from tif.metrics.results import NumbersRequest, compute_results

    source, retain_source = f"records: {cfg.records}", f"retain_records: {cfg.retain_records}"
    rules = cfg.draws, cfg.seed, cfg.allow_mismatch
    request = NumbersRequest(evaluation, retain, source, retain_source, *rules)
    return compute_results(dataclasses.replace(request, tokens=_read_tokens(cfg.records)))


def _read_tokens(path: str | None) -> "AnswersBySet":
    """Return the answers' tokens, which a run writes beside the records of its epochs."""
    from tif.records import files

    folder = Path(str(path)).parent
    return files.read_answer_tokens(folder) if (folder / files.TOKENS).is_file() else {}


def _log_to_wandb(cfg: Evaluate, results: dict[str, Any]) -> None:
    """Log the numbers as a W&B run in the group of the run that made the model."""
    from tif.reports import wandb_content
    from tif.reports.wandb_run import Labels, log_numbers

    settings = cfg.logger.wandb
    path = Path(str(cfg.records or cfg.model.path)).expanduser()
    run_folder = next((f for f in path.parents if (f / "env.json").is_file()), path)
    tags = ["records"] if cfg.records else [name.split(":")[0] for name in cfg.eval.benchmarks]
    group = wandb_content.group_of(run_folder)
    labels = Labels(f"evaluation of {run_folder.name}", group, "evaluate", tags)
    content = wandb_content.evaluation_content(results, cfg.model.path, settings.samples)
    log_numbers(settings, Path(cfg.out), labels, dataclasses.asdict(cfg), content)


def _read_evaluation(key: str, path: str | None, problems: list[str]) -> "Evaluation | None":
    """Return the evaluation at `path`; add to `problems` what is wrong with it."""
    if path is None:
        return None
    from tif.records import files
    from tif.utils.hub import find_data_file

    try:
        file = find_data_file(path)
        evaluation = files.read_evaluation(file)
    except FileNotFoundError as error:
        reason = "no such file or folder" if error.errno else str(error)
        problems.append(f"{key}: {path}: {reason}")
    except (OSError, ValueError) as error:
        problems.append(f"{key}: {error}")
    else:
        for name, records in evaluation.sets.items():
            if not records.records:
                problems.append(f"{key}: {path}: {name}: the set has no records")
        if not evaluation.sets:
            problems.append(f"{key}: {path}: no sets in it")
        return evaluation
    return None


COMMAND = Command(
    "evaluate", __doc__, evaluate, Evaluate, flags=("--json", "--print", "--metrics"),
    next_step="complete evaluations are stored; the same command continues with the rest",
)
main = COMMAND.main

if __name__ == "__main__":
    COMMAND.run()
