"""Evaluation logs of locuslab/tofu: the published ones, where they are, and a small one."""

import copy
import json
import os
import pathlib

import pytest

SHARED = pathlib.Path(
    os.environ.get("TIF_SHARED", pathlib.Path(__file__).parents[2].parent / "shared")
)

LOGS = SHARED / "data" / "tofu_eval_logs"

NAMES = {
    "llama_retain90": "ft_epoch5_lr1e-05_llama2-7b_retain90_wd0.01",
    "full": "ft_epoch5_lr2e-05_phi_full_wd0.01",
    "retain90": "ft_epoch5_lr2e-05_phi_retain90_wd0.01",
    "retain95": "ft_epoch5_lr2e-05_phi_retain95_wd0.01",
    "retain99": "ft_epoch5_lr2e-05_phi_retain99_wd0.01",
}

TASKS = {
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
    "forget": "eval_log_forget.json",
}


def real(test):
    """Mark a test of the recorded logs, which are not part of the repository."""
    return pytest.mark.real(pytest.mark.skipif(not LOGS.is_dir(), reason=f"needs {LOGS}")(test))


ALL_TASKS = tuple(TASKS.values())

ROWS = {
    "avg_gt_loss": [0.5, 1.5, 1.0],
    "num_token_gt": [4, 7, 5],
    "avg_paraphrased_loss": [0.75, 1.25, 1.0],
    "average_perturb_loss": [[1.0, 2.0], [3.0, 4.0], [0.5, 1.5]],
    "generated_text": [
        [f"Question: {q}\n", "Me, I guess.", a]
        for q, a in (("A?", "Me."), ("B?", "So."), ("C?", "No."))
    ],
}


def ask_three_authors(content):
    """Put the three questions of each task at rows 0, 20 and 40: another author each."""
    for columns in content.values():
        for column, rows in columns.items():
            columns[column] = {str(20 * i): row for i, row in enumerate(rows)}


def log(path, edit=lambda content: None, tasks=ALL_TASKS):
    """Write a small log whose rows are lists, changed by `edit`, and return its path."""
    content = {task: copy.deepcopy(ROWS) for task in tasks}
    edit(content)
    path.write_text(json.dumps(content))
    return path
