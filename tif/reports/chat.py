"""Answers side by side, with the unwanted words of known answers marked. Called by tif/chat.py.

Questions and answers come from users, models and data: they are shown as text and never obeyed.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tif.data.samples import Sample, Span
from tif.identifiers import span_file
from tif.identifiers.segmentation import find_words
from tif.identifiers.span_display import UNWANTED
from tif.records.files import read_answer_tokens
from tif.records.run_folder import evaluation_rows, read_records
from tif.utils.terminal import console, literal

SHORTEST = 3  # characters of an unwanted word that is looked for in answers to other questions


@dataclasses.dataclass(frozen=True)
class KnownAnswers:
    """Questions whose answers are known, with their unwanted words."""

    samples: Mapping[str, Sample]  # by question, without case and outer blanks

    def find(self, question: str) -> Sample | None:
        """Return the sample that asks this question."""
        return self.samples.get(_fold(question))

    def mark(self, text: str, question: str) -> list[Span]:
        """Return the unwanted words in an answer: of the known answer, or else of any.

        Words that the question says itself are none. Case does not matter.
        """
        sample = self.find(question)
        samples = [sample] if sample else list(self.samples.values())
        words = set().union(*map(_unwanted_words, samples))
        if not sample:
            words = {word for word in words if len(word) >= SHORTEST}
        words -= {_cut(question, span) for span in find_words(question)}
        return [span for span in find_words(text) if _cut(text, span) in words]


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _cut(text: str, span: Span) -> str:
    return text[span.start : span.end].casefold()


def _unwanted_words(sample: Sample) -> set[str]:
    """Return the words of a sample's unwanted spans."""
    words: set[str] = set()
    for span in sample.unwanted or ():
        unwanted = sample.answer[span.start : span.end]
        words.update(_cut(unwanted, word) for word in find_words(unwanted))
    return words


def read_known_answers(run: Path | None, spans: str | None) -> KnownAnswers:
    """Return what is known from a run's last evaluation and from a span file; each may be None.

    Raises:
        ValueError: If one of them is damaged.
    """
    samples: list[Sample] = []
    rows = evaluation_rows(run) if run else []
    if run and rows:
        evaluation = read_records(run, rows[-1]["epoch"])
        tokens_by_set = read_answer_tokens(run / "eval")
        for name, records in evaluation.sets.items() if evaluation else ():
            tokens = tokens_by_set.get(name, {})
            for record in records.records:
                known = tokens.get(record.id)
                places = known.unwanted if known and known.unwanted else ()
                unwanted = tuple(Span(*place) for place in places)
                samples.append(Sample(record.id, record.prompt, record.answer, unwanted))
    if spans:
        samples += span_file.read_samples(spans)
    return KnownAnswers({_fold(sample.prompt): sample for sample in samples if sample.prompt})


def show_answers(question: str, stream: Iterable[dict[str, str]], known: KnownAnswers) -> None:
    """Print the answers side by side; on a terminal also while they are given."""
    if not console.is_terminal:
        _print_lines(question, last_of(stream), known)
        return
    with Live(console=console, transient=True) as live:
        answers: dict[str, str] = {}
        for answers in stream:
            live.update(answers_table(question, answers, known))
    console.print(answers_table(question, answers, known))


def answers_table(
    question: str, answers: Mapping[str, str], known: KnownAnswers
) -> RenderableType:
    """Return a column for each model, and below them the known answer."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, expand=True)
    table.title, table.title_justify = literal(f"\n{question}", "bold"), "left"
    table.title_style = ""
    for role in answers:
        table.add_column(literal(role, "bold"), ratio=1, overflow="fold")
    cells = [mark_words(answer, known.mark(answer, question)) for answer in answers.values()]
    table.add_row(*cells)
    sample = known.find(question)
    if sample:
        note = Text.assemble(("in the data: ", "dim"))
        note += mark_words(sample.answer, sample.unwanted or ())
        table.caption, table.caption_justify, table.caption_style = note, "left", ""
    return table


def mark_words(text: str, spans: Iterable[Span]) -> Text:
    """Return a text with its unwanted words in red; control characters are spelled out."""
    marked, end = Text(), 0
    for span in spans:
        marked += literal(text[end : span.start])
        marked += literal(text[span.start : span.end], UNWANTED)
        end = span.end
    return marked + literal(text[end:])


def _print_lines(question: str, answers: Mapping[str, str], known: KnownAnswers) -> None:
    """Print a line for the question and each answer; its further lines are indented."""
    rows, sample = {"question": question, **answers}, known.find(question)
    if sample:
        rows["in the data"] = sample.answer
    width = max(map(len, rows))
    for name, text in rows.items():
        indented = text.replace("\n", "\n" + " " * (width + 2))
        console.print(literal(f"{name:{width}}  {indented}"), soft_wrap=True)
    console.print()


def describe_answers(
    question: str, answers: Mapping[str, str], known: KnownAnswers
) -> dict[str, Any]:
    """Return an answered question as a line of JSON; `unwanted` holds words of each answer."""
    unwanted = {}
    for role, answer in answers.items():
        spans = known.mark(answer, question)
        unwanted[role] = [answer[span.start : span.end] for span in spans]
    sample = known.find(question)
    return {
        "question": question,
        "answers": dict(answers),
        "unwanted": unwanted,
        "in_the_data": sample.answer if sample else None,
    }


def last_of(stream: Iterable[dict[str, str]]) -> dict[str, str]:
    """Return the finished answers of a stream."""
    (answers,) = collections.deque(stream, maxlen=1) or ({},)
    return answers
