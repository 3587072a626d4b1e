r"""tif audit: is it really gone? Attacks that try to get unlearned facts back.

    tif audit RUN [RUN ...] [attacks=[relearn,sample]] [key=value ...] [--best] [--json]
    tif audit model.path=MODEL target=MODEL retain_model=MODEL [key=value ...] [--json]
    tif audit --help [section ... | all]

RUN is a finished run's folder, whose target, retain and unlearned models and data are known, or a
folder of runs, as a sweep makes it. Without a run, three models are named (Hugging Face folders or
hub names), and the data by the keys of tif.fit:

    tif audit runs/quickstart attacks=prefix,sample sample.draws=32
    tif audit runs/methods_quickstart
    tif audit model.path=M target=T retain_model=R data.benchmark=tofu \
        data.path=locuslab/TOFU data.split=forget10 identifier.kind=precomputed \
        identifier.path=MASKS

Each attack runs on all three models with the same budget and the same draws. leak = (unlearned -
retain) / (target - retain): 0 where the unlearned model yields what the retain model yields, 1
where it yields what the target model yields. Results are kept by model and attack: the same command
goes on after a kill, and runs that are audited together share those of their target and retain
model. The run's files only say what is audited: a server (identifier.kind=generative, sample.judge)
or code of a model (model.trust_remote_code=true) is asked for on the command line. A run's page is
<run>/audit/audit.md, with curves and audit.json; of several, <folder>/audit/audit.md.

    --best      of a run, audit model_best/ (the epoch that eval.best chose) where there is one
"""

import dataclasses
import os
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tif.audit.keys import FOLDER, make_settings
from tif.config import load as config
from tif.config.command import Command
from tif.utils import command_line, distributed

if TYPE_CHECKING:
    from tif.audit.run_attacks import AuditPlan


def audit(options: Namespace) -> Any:
    """Audit the runs or models that the words name; return the content of audit.json by run."""
    from tif.utils.terminal import console, silence

    if not distributed.is_first_rank():
        silence()
    plans = _plan(options.words, options.best)
    from tif.audit import run_attacks as attacks
    from tif.audit.tables import show_audit, write_comparison
    from tif.reports.wandb_run import log_audit
    from tif.training.checks import check_wandb

    for plan in plans.values():
        check_wandb(plan.settings.logger.wandb)
    distributed.start(next(iter(plans.values())).settings.device)
    inputs = {name: attacks.plan_audit(plan) for name, plan in plans.items()}
    results = {}
    for name, attack_inputs in inputs.items():
        console.print(f"audit of {name}", soft_wrap=True)
        results[name], stored = attacks.complete_audit(attack_inputs)
        if distributed.is_first_rank():
            settings, folder = attack_inputs.settings, attack_inputs.subjects["unlearned"].folder
            log_audit(settings.logger.wandb, folder, dataclasses.asdict(settings), stored)
            if len(inputs) == 1 and not options.json:
                show_audit(stored, folder)
    if len(results) > 1 and distributed.is_first_rank():
        write_comparison(_find_common_folder(results) / FOLDER, results)
    return results if options.json else None


def _plan(words: Sequence[str], best: bool) -> "dict[str, AuditPlan]":
    """Return the audits that the words ask for, by the run's folder or the model's path."""
    from tif.utils.terminal import quiet_libraries

    folders = [word for word in words if not (config.is_override(word) or config.is_file(word))]
    keys = [word for word in words if word not in folders]
    if not folders:
        settings = config.read(make_settings, keys)
        with command_line.loading():
            from tif.audit.run_attacks import AuditPlan
        quiet_libraries()

        return {str(settings.model.path): AuditPlan(settings, Path(settings.out) / "spans")}
    with command_line.loading():
        from tif.audit.run import list_runs, plan_run_audit
    quiet_libraries()  # Lightning, imported now, sets its own level
    runs: list[Path] = []
    for folder in folders:
        runs += list_runs(Path(folder))
    out = _find_common_folder(runs) / FOLDER if len(runs) > 1 else None
    return {str(run): plan_run_audit(run, keys, best, out) for run in runs}


def _find_common_folder(runs: Iterable[str | Path]) -> Path:
    return Path(os.path.commonpath([os.path.abspath(run) for run in runs]))


COMMAND = Command(
    "audit", __doc__, audit, make_settings, flags=("--best", "--json"), needs_words=True,
    next_step="complete results are stored; the same command continues with the rest",
)
main = COMMAND.main
