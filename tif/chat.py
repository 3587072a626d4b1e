"""tif chat: ask a question to the target, the unlearned and the retain model, side by side.

    tif chat RUN [--question TEXT ...] [--questions FILE] [--json] [--best] [key=value ...]
    tif chat model.path=MODEL [target=MODEL] [retain_model=MODEL] [data.template=chat] ...
    tif chat --help [section ... | all]

RUN is a run's folder: its models, its prompt format and the unwanted words of its answers are
known. A model that is not there is named, and the others answer. Without a run any Hugging Face
causal LMs (folders or hub names) are asked, with the prompt format of the keys data.template and
data.chat.

    tif chat runs/quickstart
    tif chat runs/quickstart --question "Where was Łucja Mbekani born?"
    tif chat runs/quickstart --questions questions.txt --json > answers.jsonl
    tif chat model.path=HuggingFaceTB/SmolLM2-135M-Instruct

Without questions on the command line they are read from the terminal, one a line, until Ctrl-D.
Unwanted words are red: those of the known answer, for a question of the run; else those of any.

    --question   ask this and end; may be given several times
    --questions  ask the lines of a file (a .jsonl: the key "prompt" of each); - = of stdin
    --best       of a run, ask model_best/ (the epoch that eval.best chose)

JSON, a line a question: {"question", "answers", "unwanted", "in_the_data"}.
"""

import contextlib
import itertools
import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tif.config import load as config
from tif.config.command import Command
from tif.config.command_keys import ChatCommand
from tif.config.errors import ConfigError, one_line
from tif.utils import command_line

if TYPE_CHECKING:
    from tif.evaluation.side_by_side import Panel
    from tif.reports.chat import KnownAnswers


def chat(options: Namespace) -> Any:
    """Answer the questions one by one; with --json, return an iterator over the lines."""
    from tif.reports.chat import describe_answers, last_of, show_answers

    questions: Iterable[str] = list(options.question or ())
    if options.questions and options.questions != "-":
        questions = [*questions, *read_questions(Path(options.questions))]
    panel, known = _plan(options.words, options.best)
    if options.questions == "-":
        questions = itertools.chain(questions, map(str.strip, sys.stdin))
    elif not questions:
        questions = ask_for_questions()
    questions = filter(None, questions)
    if options.json:
        return (
            describe_answers(question, last_of(panel.stream(question)), known)
            for question in questions
        )
    for question in questions:
        show_answers(question, panel.stream(question), known)
    return None


def _plan(words: Sequence[str], best: bool) -> "tuple[Panel, KnownAnswers]":
    """Return the models and the known answers that the words name; print what they are."""
    with command_line.loading():
        from tif.evaluation.side_by_side import plan_panel
        from tif.reports.chat import read_known_answers
        from tif.training.run_models import plan_run_chat
        from tif.utils.terminal import console, literal, quiet_libraries

    quiet_libraries()
    folders = [word for word in words if not (config.is_override(word) or config.is_file(word))]
    keys = [word for word in words if word not in folders]
    if len(folders) > 1:
        raise ConfigError(f"{folders[1]}: want one run folder; other models by their keys")
    run = Path(folders[0]).expanduser() if folders else None
    missing: list[str] = []
    if run:
        settings, missing = plan_run_chat(run, keys, best)
    else:
        settings = config.read(ChatCommand, keys)
    panel = plan_panel(settings)
    try:
        known = read_known_answers(run, settings.spans)
    except ValueError as error:
        raise ConfigError(one_line(error)) from None
    for role, subject in panel.subjects.items():
        path = str(subject.section.path).removeprefix(f"{Path.cwd()}/")
        console.print(literal(f"{role:9}  {path}", "dim"), soft_wrap=True)
    for line in missing:
        console.print(line, soft_wrap=True)
    return panel, known


def read_questions(path: Path) -> list[str]:
    """Return the questions of a file: its lines, or the key "prompt" of each in a .jsonl.

    Raises:
        ConfigError: If a line of a .jsonl has none, or the file is not in UTF-8.
    """
    questions = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise ConfigError(f"--questions: {path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"--questions: {path}: save it as UTF-8 ({one_line(error)})") from None
    for number, line in enumerate(lines, 1):
        question = line.strip()
        if question and path.suffix == ".jsonl":
            try:
                question = str(json.loads(question)["prompt"]).strip()
            except (ValueError, TypeError, KeyError):
                wanted = 'want a JSON object with the key "prompt"'
                raise ConfigError(f"--questions: {path}: line {number}: {wanted}") from None
        questions.append(question)
    if not any(questions):
        raise ConfigError(f"--questions: {path}: no questions in it")
    return questions


def ask_for_questions() -> Iterator[str]:
    """Yield what a user types, a line each, until the end of the input."""
    if not sys.stdin.isatty():
        yield from map(str.strip, sys.stdin)
        return
    import readline  # noqa: F401  the line can be edited, and has a history

    print("one question a line; Ctrl-D ends", flush=True)
    with contextlib.suppress(EOFError):
        while True:
            yield input("> ").strip()


COMMAND = Command(
    "chat", __doc__, chat, ChatCommand, flags=("--json", "--best"),
    values={"--question": "append", "--questions": "store"},
    next_step="nothing was written; give the command again",
)
main = COMMAND.main

if __name__ == "__main__":
    COMMAND.run()
