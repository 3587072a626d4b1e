"""Run the shell blocks of a page in a folder where all that they name exists, small and local.

`RULES` says what is run in the place of a command, and why where that is not the work itself.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess

from tests.support.small_run import SMALL

LARGE = "weights of billions of parameters, from the hub"
SERVER = "needs a server of an LLM"
SWEEPS = "dozens of runs"
GPU = "needs a GPU"
STUDY = "a study with models that are not in the repository"
NETWORK = "needs a network: see tests/test_download.py"
ACCOUNT = "needs an account"
PROCESSES = "four processes: see tests/training/test_many_processes.py"
CLUSTER = "needs a SLURM controller: see tests/test_slurm.py"
CHECKS = "continuous integration does it"
REASONS = {LARGE, SERVER, SWEEPS, GPU, STUDY, NETWORK, ACCOUNT, PROCESSES, CLUSTER, CHECKS}
# How a command begins, what it contains, the option that is added (None: not run), why.
RULES = (
    ("tif fit", "model=llama_", "--print", LARGE),
    ("tif fit", "model=qwen_", "--print", LARGE),
    ("tif fit", "=muse-", "--print", LARGE),
    ("tif fit", "lume.yaml", "--print", LARGE),
    ("tif evaluate", "model=llama_", "--print", LARGE),
    ("tif evaluate", "muse-news", "--print", LARGE),
    ("tif identify", "generative", "--print", SERVER),
    ("tif sweep", "--count", "", ""),
    ("tif sweep", "experiment/", "--list seeds=[0]", SWEEPS),
    ("tif audit", "sample.judge", None, SERVER),
    ("tif bench", "device=cuda", "--help", GPU),
    ("tif download", "", None, NETWORK),
    ("sbatch", "", None, CLUSTER),
    ("slurm/chain.sh", "", None, CLUSTER),
    ("wandb", "", None, ACCOUNT),
    ("torchrun", "", "--print", PROCESSES),
    ("llama-server", "", None, SERVER),
    ("python -m lab.", "", None, STUDY),
    ("python3 -m venv", "", None, CHECKS),
    (".venv/bin/pip", "", None, CHECKS),
    (".venv/bin/pytest", "", None, CHECKS),
    (".venv/bin/ruff", "", None, CHECKS),
    (".venv/bin/mypy", "", None, CHECKS),
    (".venv/bin/mkdocs", "", None, CHECKS),
    (".ci/run", "", None, CHECKS),
    (".ci/full", "", None, CHECKS),
)
# docs/results says how numbers came about. What a command would do is asked, where it can say so.
RESULTS = (
    ("tif fit", "", "--print", STUDY),
    ("tif identify compare", "", None, STUDY),
    ("tif identify", "", "--print", STUDY),
    ("tif evaluate", "", "--print", STUDY),
    ("tif sweep", "", "--list seeds=[0]", STUDY),
    ("tif audit", "", None, STUDY),
)
PROGRAMS = {rule[0].partition(" ")[0] for rule in RULES} | {".venv/bin/python"}
# The settings of a run that belong to the models and the data, not to the method.
METHOD = ("loss.", "optimizer.", "run.", "trainer.max_epochs")
FIT = [word for word in SMALL if not word.startswith(METHOD)] + ["trainer.max_epochs=1"]
AUDIT = (
    "sample.draws=2 prefix.shots=1 relearn.steps=4 relearn.shares=[0.5] "
    "relearn.others=[] eval.max_samples.forget=4 eval.max_new_tokens=4"
)
BENCH = "samples=4 batch_sizes=[2] memory=false threads=1"


@dataclasses.dataclass(frozen=True)
class Rule:
    """Words that `tif` gets in the place of a command of a page."""

    words: list[str] | None  # None = nothing is run
    reason: str  # why the work itself is not done; "" where it is


@dataclasses.dataclass(frozen=True)
class Call:
    """A program that a block called: its words as written, those that ran, how it ended.

    `seconds`: of a core.
    """

    words: list[str]
    ran: list[str] | None
    reason: str
    code: int
    output: str
    seconds: float


def blocks_of(text):
    """Return the shell blocks of a page, and the files that its other blocks begin with."""
    files = dict(re.findall(r"```(?:python|yaml)\n# (\w+\.\w+)\n(.*?)```", text, re.DOTALL))
    shell = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for content in files.values():
        shell += re.findall(r"^# (tif .*\n)", content)
    return shell, files


def rule_for(words, is_result=False):
    """Return what is run in the place of a command."""
    program, arguments = words[0], words[1:]
    module = arguments[arguments.index("-m") + 1] if "-m" in arguments else ""
    if module.startswith("tif."):
        after = arguments[arguments.index("-m") + 2 :]
        arguments = [module.removeprefix("tif."), *after]
        program = "torchrun" if program == "torchrun" else "tif"
    elif program == ".venv/bin/python":
        program = "python"
    line = " ".join([program, *arguments])
    # Of a synopsis, [what may follow] is left out, and a kind is chosen.
    plain_words = [re.sub("=KIND$", "=all", word) for word in arguments]
    plain_words = [word for word in plain_words if not re.match(r"\[|\.\.\.|[\w.]*\]$", word)]
    for start, part, option, reason in (*RULES, *(RESULTS if is_result else ())):
        if line.startswith(start) and part in line:
            return Rule(None if option is None else [*plain_words, *option.split()], reason)
    if program != "tif":
        return Rule(None, "")
    given = {word.partition("=")[0] for word in plain_words}
    small = _small_words(line)
    return Rule(
        [*plain_words, *(word for word in small if word.partition("=")[0] not in given)], ""
    )


def _small_words(line):
    """Return the words that make the work of a command small."""
    small = ["logger.wandb.offline=true"] if "wandb.enabled=true" in line else []
    is_invented = "model" not in line and "data." not in line
    if "data.request=" in line:  # the request names two of the 40 authors
        small += ["data.fictitious.authors=40", "data.fictitious.forget_share=0.1"]
        is_invented = True
    if line.startswith(("tif fit", "tif sweep")):
        wants_model = is_invented or "quickstart.yaml data." in line
        given = {word.partition("=")[0] for word in small}
        for word in FIT:
            is_free = wants_model or not word.startswith("model.init.")
            small += [word] if is_free and word.partition("=")[0] not in given else []
    elif re.match(r"tif identify (?!compare|show)", line) and is_invented:
        small += [word for word in FIT if word.startswith("data.fictitious.")]
    elif line.startswith("tif audit"):
        small += AUDIT.split()
    elif line.startswith("tif evaluate") and "model.path=" in line:
        small += ["draws=100", "eval.max_new_tokens=4"]
    elif line.startswith("tif chat"):
        small += ["max_new_tokens=2"]
    elif line.startswith("tif bench"):
        is_step = "what=memory" not in line
        small += BENCH.split() if is_step else ["model.init.num_hidden_layers=1"]
    return small


def environment(programs, home):
    """Return the environment of the blocks: no network, an empty home, one thread."""
    variables = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(home), "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true",
        "PROGRAMS": str(programs),
    }  # fmt: skip
    for name in ("HF_HOME", "XDG_CACHE_HOME", "RESULTS"):
        variables.pop(name, None)
    return variables


def run_page(text, folder, variables):
    """Run the shell blocks of a page one after another in a folder.

    Returns:
        The calls of programs, and the lines of the blocks that ended with another code than 0.
    """
    shell, files = blocks_of(text)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    for name in re.findall(r"^mkdir (\w+)", "\n".join(shell), re.MULTILINE):
        shutil.rmtree(folder / name, ignore_errors=True)
    log, failed = folder / "calls.jsonl", folder / "failed.txt"
    log.touch()
    failed.touch()
    script = "set -f; trap 'echo \"$BASH_COMMAND\" >> failed.txt' ERR\n" + "\n".join(shell)
    subprocess.run(["bash", "-n", "-c", script], check=True)
    subprocess.run(
        ["bash", "-c", script], cwd=folder, env=variables | {"CALLS": str(log)},
        stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False,
    )  # fmt: skip
    calls = [Call(**json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]
    return calls, failed.read_text(encoding="utf-8").splitlines()
