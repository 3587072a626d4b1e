"""python -m tif.evaluate: a model's numbers on TOFU, MUSE, your own texts and lm-eval's tasks, with intervals.

    python -m tif.evaluate model.path=MODEL [eval.benchmarks=tofu,muse-news,lm-eval:mmlu] [retain_model=MODEL] [--json]
    python -m tif.evaluate records=LOG [retain_records=RETAIN] [allow_mismatch=true] [--json]
    python -m tif.evaluate --metrics

MODEL is any Hugging Face causal LM, a folder or a hub name. Its records are kept in `out`; what was asked before by the
same rules is not asked again. `torchrun --nproc-per-node N -m tif.evaluate ...` shares the work out to N processes.

LOG and RETAIN are evaluations of a model and of the retain model: the eval/<epoch> folder of a run, a folder that this
command wrote, the eval_log_aggregated.json of locuslab/tofu, NPO or the TIF release, or open-unlearning's
TOFU_EVAL.json. They need no model and no GPU.

    --json      on stdout nothing but JSON. Of records: {"model_utility", "forget_quality", "tasks": {set: {metric:
                mean}}, "intervals" (the same, [low, high]), "mismatch", ...}, or, of MUSE's sets, {"metrics": {name:
                value}, "intervals", ...}. Of a model: {"model", "benchmarks": {name: the same}}. null = cannot be told
    --metrics   what each metric means: formula, range, which way is better, value of a perfect unlearning

Every number comes with its bootstrap 95 % interval over questions (tif.metrics.intervals says how).
Exit code: 0 done, 1 a file could not be read or written, 2 wrong input (one line a problem).
"""

import json
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tif.config import load as config
from tif.config.errors import ConfigError
from tif.config.evaluate_command import Evaluate
from tif.utils import command_line, distributed
from tif.utils.command_line import report_os_error

if TYPE_CHECKING:
    from tif.records.types import Evaluation


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code, as told above."""
    words = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(words):
        print(f"{__doc__}\nKeys, with their defaults:\n{config.help_text(Evaluate)}")
        return 0
    if words == ["--metrics"]:
        print(cards())
        return 0
    try:
        cfg = config.read(Evaluate, [word for word in words if word != "--json"])
        found = evaluate(cfg) if cfg.records else _of_model(cfg, quiet="--json" in words)
    except ConfigError as error:
        if distributed.is_first_rank():  # of several processes, one tells
            print(error, file=sys.stderr)
        return 2
    except Exception as error:
        return report_os_error(error, "what was complete is there, and the same command goes on with what is missing")
    if found is None:  # another process prints
        return 0
    if "--json" in words:
        print(json.dumps(found, indent=1, allow_nan=False))
        return 0
    from tif.reports.evaluation import show_evaluation

    show_evaluation(found)
    return 0


def evaluate(cfg: Evaluate) -> dict[str, Any]:
    """Read recorded evaluations and compute everything: the content of `--json`.

    Raises:
        ConfigError: With one line for each bad input.
    """
    problems: list[str] = []
    ours = _read("records", cfg.records, problems)
    retain = _read("retain_records", cfg.retain_records, problems)
    if problems or ours is None:
        raise ConfigError("\n".join(problems))
    from tif.metrics.summary import Extras, Rules, numbers

    rules = Rules(cfg.draws, cfg.seed, cfg.allow_mismatch)
    places = f"records: {cfg.records}", f"retain_records: {cfg.retain_records}"
    return numbers(ours, retain, rules, Extras(), *places)


def _of_model(cfg: Evaluate, quiet: bool) -> dict[str, Any] | None:
    """What the model's evaluations say, in the main process; None in the others."""
    from tif.evaluation import model_numbers as model_evaluation
    from tif.evaluation import model_records as checkpoint

    with checkpoint.processes(cfg.device), checkpoint.told_on_stderr(quiet):
        found = model_evaluation.evaluate(cfg)
    return found if distributed.is_first_rank() else None


def _read(setting: str, path: str | None, problems: list[str]) -> "Evaluation | None":
    """The evaluation at `path`; what is wrong with it goes to `problems`."""
    if path is None:
        return None
    from tif.records import files as records

    try:
        found = records.read(path)
    except FileNotFoundError:
        problems.append(f"{setting}: {path}: no such file or folder")
    except (OSError, ValueError) as error:
        problems.append(f"{setting}: {error}")
    else:
        empty = [name for name, own in found.sets.items() if not own.records]
        problems += [f"{setting}: {path}: {name}: the set has no records" for name in empty]
        if not found.sets:
            problems.append(f"{setting}: {path}: no sets in it")
        return found
    return None


def cards() -> str:
    """Each metric's docstring, as far as it is about the metric."""
    from tif.metrics.summary import metric_cards

    return "\n\n".join(f"{name}\n{textwrap.indent(text, '  ')}" for name, text in metric_cards().items())


if __name__ == "__main__":
    command_line.run_main(main)
