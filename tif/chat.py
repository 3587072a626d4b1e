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
    tif chat model.path=HuggingFaceTB/SmolLM2-135M-Instruct data.template=chat

Without questions on the command line they are read from the terminal, one a line, until Ctrl-D.
Unwanted words are red: those of the known answer, for a question of the run; else those of any.

    --question   ask this and end; may be given several times
    --questions  ask the lines of a file (a .jsonl: the key "prompt" of each); - = of stdin
    --json       print a line of JSON for each question: {"question", "answers", "unwanted",
                 "in_the_data"}
    --best       of a run, ask model_best/ (the best epoch by eval.best)

Exit code: 0 done, 1 a file could not be read, 2 wrong input (one line a problem, before weights
load).
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tif.losses  # noqa: F401  registers the loss terms, whose keys a run's configuration has
from tif.config import load as config
from tif.config.chat_command import ChatCommand
from tif.config.errors import ConfigError, one_line
from tif.config.help import command_help
from tif.utils import command_line

if TYPE_CHECKING:
    from tif.evaluation.side_by_side import Panel
    from tif.reports.chat import KnownAnswers


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command_line.Parser("tif chat")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--question", action="append", default=[])
    parser.add_argument("--questions")
    for flag in ("--json", "--best", "--help", "-h"):
        parser.add_argument(flag, action="store_true")
    options, unknown = parser.parse_known_intermixed_args(argv)
    try:
        if options.help or options.h:
            command_line.print_help(command_help(__doc__, ChatCommand, options.words))
            return 0
        from tif.utils.terminal import printing_to_stderr

        with printing_to_stderr(options.json):  # stdout is for the JSON alone
            _chat(options, [*unknown, *options.words])
    except ConfigError as error:
        command_line.print_error(error)
        return 2
    except Exception as error:
        return command_line.report_os_error(error, "nothing was written; give the command again")
    return 0


def _chat(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Plan the chat, then answer each question."""
    from tif.utils.terminal import quiet_libraries

    questions = list(options.question)
    if options.questions and options.questions != "-":
        questions += read_questions(Path(options.questions))
    panel, known = _plan(words, options.best)
    quiet_libraries()
    if questions or options.questions:
        from_stdin = sys.stdin if options.questions == "-" else ()
        for question in (*questions, *(line.strip() for line in from_stdin)):
            if question:
                answer(question, panel, known, options.json)
        return
    for question in ask_for_questions():
        answer(question, panel, known, options.json)


def _plan(words: Sequence[str], best: bool) -> "tuple[Panel, KnownAnswers]":
    """Return the models and the known answers that the words name; print what they are."""
    from tif.utils.terminal import console, literal, quiet_libraries

    folders = [word for word in words if not (config.is_override(word) or config.is_file(word))]
    keys = [word for word in words if word not in folders]
    run = Path(folders[0]).expanduser() if folders else None
    if len(folders) > 1:
        raise ConfigError(f"{folders[1]}: want one run folder; other models by their keys")
    missing: tuple[str, ...] = ()
    if run:
        from tif.training.run_chat import plan_run_chat

        quiet_libraries()  # Lightning, imported now, sets its own level
        plan = plan_run_chat(run, keys, best)
        settings, missing = plan.settings, plan.missing
    else:
        settings = config.read(ChatCommand, keys)
        quiet_libraries()
    from tif.evaluation.side_by_side import plan_panel
    from tif.reports.chat import read_known_answers

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
                raise ConfigError(f"--questions: {path}, line {number}: {wanted}") from None
        if question:
            questions.append(question)
    if not questions:
        raise ConfigError(f"--questions: {path}: no questions in it")
    return questions


def ask_for_questions() -> Iterator[str]:
    """Yield what a user types, a line each, until the end of the input."""
    if sys.stdin.isatty():
        import readline  # noqa: F401  the line can be edited, and has a history

        print("one question a line; Ctrl-D ends", flush=True)
    while True:
        try:
            question = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if question:
            yield question


def answer(question: str, panel: "Panel", known: "KnownAnswers", wants_json: bool) -> None:
    """Print the answers of all models to a question."""
    from tif.reports.chat import describe_answers, last_of, show_answers

    stream = panel.stream(question)
    if wants_json:
        content = describe_answers(question, last_of(stream), known)
        print(json.dumps(content).replace("\x7f", "\\u007f"), flush=True)
        return
    show_answers(question, stream, known)


if __name__ == "__main__":
    command_line.run_main(main)
