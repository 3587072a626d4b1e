"""Every shell block of README.md and docs/, and each command in a head of configs/*.yaml, runs.

Settings are made small; models and data of the hub are local folders of the same names. What
needs a cluster, a network or large weights is read with --print or --list or not run, for a
reason: see `RULES` in tests/support/documented_shell.py.
"""

import copy
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import datasets
import pytest

from tests.support import (
    chat_templates,
    evaluation_logs,
    language_models,
    lume_files,
    small_run,
    tofu_files,
)
from tests.support import command_server as server
from tests.support import documented_shell as shell
from tests.support.hangs import wait_until
from tif import __main__ as script
from tif.config import load as config
from tif.identifiers import precomputed

ROOT = pathlib.Path(config.__file__).parents[2]
LUME = "lume-llm-unlearning/data"
QUICK = ("docs/methods.md", "docs/chat.md", "docs/contributing.md")


def read_pages():
    """Return page -> its text, of pages with shell blocks; the heads of configs/ are one page."""
    pages = {}
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if "```sh\n" in text:
            pages[str(path.relative_to(ROOT))] = text
    commands = []
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        head = re.match("(#.*\n)*", path.read_text(encoding="utf-8"))[0]
        commands += re.findall("^# +(tif .*\n)", head, re.MULTILINE)
    block = "".join(commands).replace("lume.yaml data.path=FOLDER", f"lume.yaml data.path={LUME}")
    return pages | {"configs": f"```sh\n{block}```"}


PAGES = read_pages() if (ROOT / "docs").is_dir() else {}
PARAMETERS = [pytest.param(page, marks=() if page in QUICK else pytest.mark.slow) for page in PAGES]
LLAMAS = (
    "MODEL", "OTHER", "TARGET", "RETAIN", "POLICY", "M", "T", "R", "SMOLLM2", "org/name",
    "HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M-Instruct",
    "../SmolLM2-135M", "../SmolLM2-135M-Instruct", "runs/x/model", "runs/stages/RETAIN/model",
    "runs/tpo_centred_gdr_forget05_SmolLM2-135M-Instruct/model",
)  # fmt: skip
BERTS = ("MINILM", "distilbert-base-uncased")
SWEEP = "base: [quickstart.yaml]\nruns: {tpo: [], ga: [loss/ga.yaml]}\n"


def write_masks(folder, questions):
    """Write masks as the authors' release has them: all words but the first are common."""
    rows = {"question": [], "answer": [], "common_words": [], "target_words": []}
    for question in questions:
        answer = question["answer"]
        border = len(answer.partition(" ")[0])
        target = {"word": answer[:border], "start": 0, "end": border}
        common = {"word": answer[border + 1 :], "start": border + 1, "end": len(answer)}
        rows["question"].append(question["question"])
        rows["answer"].append(answer)
        rows["common_words"].append([json.dumps(common)])
        rows["target_words"].append(json.dumps([target]))
    for split in ("forget01", "forget05", "forget10"):
        datasets.Dataset.from_dict(rows).save_to_disk(f"{folder}/{split}_with_common_words_gpt")
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder))  # where a page names no split


def write_tofu(folder):
    """Write a TOFU of eight questions with all three splits."""
    folder.mkdir(parents=True)
    for name, rows in tofu_files.FILES.items():
        for split, retain in (("01", "99"), ("05", "95"), ("10", "90")):
            file = name.replace("forget01", f"forget{split}").replace("retain99", f"retain{retain}")
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{file}.json").write_text(text)


def write_models(box, work, tokenizer):
    """Link the names of models in the pages to a small Llama and a small BERT."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = chat_templates.CHATML
    llama = language_models.llama(box / "llama", tokenizer)
    bert = language_models.bert(box / "bert", positions=512)
    for name, model in (dict.fromkeys(LLAMAS, llama) | dict.fromkeys(BERTS, bert)).items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).symlink_to(model)


def write_texts(work):
    """Write the texts, questions, sweeps and logs that the pages name as the reader's own."""
    lume_files.write(work / LUME)
    for folder in ("my_folder", "FOLDER", "book"):
        (work / folder).mkdir(exist_ok=True)
        (work / folder / "forget.txt").write_text("Ada Quill lives in [[Port Lorne]].\n")
        (work / folder / "retain.txt").write_text("Port Lorne is a town by the sea.\n")
    for name in ("my_sweep.yaml", "best_epoch.yaml"):
        (work / name).write_text(SWEEP)
    (work / "questions.txt").write_text("Who?\nWhere?\n")
    for name in ("LOG.json", "RETAIN.json"):
        evaluation_logs.log(work / name)


@pytest.fixture(scope="module")
def box(tmp_path_factory, tokenizer):
    """A folder with all that the blocks name in its folder `work`, or beside it (`../TOFU`)."""
    box = tmp_path_factory.mktemp("documented")
    work = box / "work"
    work.mkdir()
    shutil.copytree(small_run.copied_run(tmp_path_factory), work / "runs")
    sweep = "methods_quickstart"
    for name in ("mine", "a", "b", "c", f"{sweep}/tpo/seed0", f"{sweep}/ga/seed0"):
        shutil.copytree(work / "runs" / "quickstart", work / "runs" / name)
    write_models(box, work, tokenizer)
    for tofu in ("TOFU", "locuslab/TOFU", "../TOFU"):
        write_tofu(work / tofu)
    for masks in ("MASKS", "../masks", precomputed.REPOSITORY):
        write_masks(work / masks, tofu_files.FILES["forget01"])
    write_texts(work)
    gold = [word for word in small_run.SMALL if word.startswith("data.fictitious.")]
    assert script.main(["identify", "identifier.kind=gold", *gold, f"out={work}/gold.jsonl"]) == 0
    shutil.copytree(ROOT / "lab", work / "lab")
    return box


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    """The environment of the blocks; its programs are answered by a server until the tests end."""
    home, programs = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("programs")
    variables = shell.environment(programs, home)
    with tempfile.TemporaryDirectory() as folder:  # a socket's name is short
        address = f"{folder}/socket"
        server.write_programs(programs, shell.PROGRAMS, address)
        command = [sys.executable, "-m", "tests.support.command_server", address]
        with subprocess.Popen(command, cwd=ROOT, env=variables) as process:
            wait_until(lambda: os.path.exists(address) or process.poll() is not None)
            assert process.poll() is None
            yield variables
            process.terminate()


@pytest.mark.parametrize("page", PARAMETERS)
def test_every_shell_block_of_a_page_runs(page, box, variables, tmp_path):
    folder = tmp_path / "box"
    shutil.copytree(box, folder, symlinks=True)
    for name in shell.PROGRAMS:
        if "/" in name:
            (folder / "work" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(f"{variables['PROGRAMS']}/{name}", folder / "work" / name)
    page_variables = variables | ({"RESULTS": "yes"} if "/results/" in page else {})
    calls, failed = shell.run_page(PAGES[page], folder / "work", page_variables)
    print(f"{sum(call.seconds for call in calls):.0f} s of a core")
    for call in calls:
        print(f"{call.seconds:.1f} s, code {call.code}: {' '.join(call.ran or [])} {call.reason}")
    problems = [f"{' '.join(call.words)}\n{call.ran}\n{call.output}" for call in calls if call.code]
    assert "\n\n".join(problems) == ""
    assert failed == []
    without_reason = [call.words for call in calls if call.ran is None and not call.reason]
    assert without_reason == []
    assert {call.reason for call in calls} <= shell.REASONS | {""}
    assert len(calls) >= len(re.findall(r"^ *(?:tif|sbatch|torchrun) ", PAGES[page], re.MULTILINE))


def test_a_program_that_no_rule_names_is_not_run_and_has_no_reason():
    assert shell.rule_for(["python", "my_script.py"]) == shell.Rule(None, "")
