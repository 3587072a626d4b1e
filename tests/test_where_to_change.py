"""What a person may want to change stands in one file: docs/architecture.md names it."""

import pathlib
import re

import pytest

from tif.metrics.registry import all_metrics

ROOT = pathlib.Path(__file__).parents[1]
KINDS = {".py", ".css", ".js", ".html", ".yaml", ".txt"}
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "tif").rglob("*"))
    if path.suffix in KINDS and path.name != "constraints.txt"
}
# What the table of the page calls it -> a pattern of the line to change, which one file has.
CHANGES = {
    "the retry policy of the API client": r"^(ASK_AGAIN|GIVE_UP|MAX_WAIT_S) = ",
    "the limits on a reply's size, time and redirects": r"^MAX_REDIRECTS = |^class ReplyTooLong",
    "how texts of others are shown on the terminal": r"^def (escape_controls|literal)\(",
    "what counts as a word, and what as general between words": r"^def find_words\(",
    "the KS test behind forget quality, the metric's title": r'"forget/quality", "forget quality"',
    "when a checkpoint is written": r"^class Checkpoints\(",
    "the prompt format": r"^class Template\b",
    "the columns of the final table": r"^def list_main_columns\(",
    "a chart of the report": r"^def (word|ratio|extraction)_chart\(",
    "the colour of unwanted words (page and plots)": r"--uw: #|#c03c12|#ff8f66",
    "the report's sample browser": r"^const FADED = ",
    "how a reply of an LLM is parsed": r"^class BadReply\b|^_LIST_IN_PROSE = ",
    "which layers LoRA adapts": r"^def list_linear_layers\(",
    "the learning-rate schedule": r"^def make_schedule\(",
    "what determines a stage's hash": r"^DECIDING_DATA = |^NOT_DECIDING = ",
    "the MUSE prompts (their texts)": r"^(VERBMEM|KNOWMEM|STOPS) = ",
    "how a MUSE prompt becomes tokens": r"^SAMPLES_PER_PREFIX = ",
    "the order of retain samples": r"^class PairedSamples\(",
    "the length of packed rows": r"^PACKED_TOKENS = ",
    "the words of a config error": r"^def check_values\(",
    "a flag that all commands have": r"^(JSON_HELP|EXIT_CODES) = ",
    "the rules of an evaluation protocol": r"^(LEGACY_TOFU|OPEN_UNLEARNING) = ",
    "the intervals": r"^def (t_interval|mean_interval)\(|^LEVEL = ",
    "the share of tokens that Min-K reads in PrivLeak": r"(?<=[=(, ])0\.4\b(?! %)",
    "what shares a subject, by id": r"^def group_of_id\(",
    "which half of the questions chooses an epoch": r"^def split_evaluation\(",
    "the name of a group at W&B": r"^def group_of\(",
    "the signal of a requeue": r"signal\.SIGUSR1",
    "the relearning attack's rate": r"lr: float = key\(1e-5, \"AdamW's",
}


def read_table():
    """Return (change, file) for each row of the page's table."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Where do I change X?\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| (.+?) \| `(.+?)` \|$", table, re.MULTILINE)


pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs the checkout")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_made_in_the_one_file_that_the_page_names(change):
    files = [path for path, text in TEXTS.items() if re.search(CHANGES[change], text, re.MULTILINE)]
    assert files == [dict(read_table())[change]]


def test_the_page_names_each_change_once_and_files_that_exist():
    changes = [change for change, _ in read_table()]
    assert len(changes) == len(set(changes)) > 30
    assert [file for _, file in read_table() if not (ROOT / file).exists()] == []


def test_the_title_of_a_metric_is_registered_with_the_function_that_computes_it():
    modules = {metric.function.__module__ for metric in all_metrics().values()}
    files = {
        path for path, text in TEXTS.items() if re.search(r"^ *@?register_metric\(", text, re.M)
    }
    docstring = {"tif/metrics/registry.py"}
    assert {f"{module.replace('.', '/')}.py" for module in modules} == files - docstring
