"""Answers with their unwanted words marked, printed or as HTML."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tif.data.samples import Sample
from tif.identifiers.span_comparison import count_units

if TYPE_CHECKING:
    from rich.console import Console

UNWANTED = "bold red"  # of words in a terminal, also in `tif chat`


def split_marked(sample: Sample) -> Iterator[tuple[str, bool]]:
    """Yield the answer in stretches, with whether they are unwanted."""
    position = 0
    for span in sample.unwanted or ():
        if span.start > position:
            yield sample.answer[position : span.start], False
        yield sample.answer[span.start : span.end], True
        position = span.end
    if position < len(sample.answer):
        yield sample.answer[position:], False


def summarize(samples: Sequence[Sample]) -> str:
    """Return how many samples and words there are, and which share of the words is unwanted."""
    words = count_units(samples)
    counts = f"{len(words.unwanted):,} of {words.total:,} words unwanted"
    return f"{len(samples)} samples, {counts} ({words.unwanted_share:.1%})"


def print_samples(samples: Sequence[Sample], console: "Console") -> None:
    """Print prompts and answers, unwanted words in red.

    Where there is no colour they stand in [[double brackets]].
    """
    from rich.text import Text

    from tif.utils.terminal import literal

    has_colour = console.is_terminal and not console.no_color
    is_log = not console.is_terminal  # whose lines are whole; in a terminal they wrap at blanks
    for sample in samples:
        title = f"{sample.id}  {sample.prompt}".rstrip()
        console.print(literal(title, "dim"), soft_wrap=is_log)
        line = Text()
        for stretch, is_unwanted in split_marked(sample):
            shown = stretch if has_colour or not is_unwanted else f"[[{stretch}]]"
            line.append(literal(shown, UNWANTED if has_colour and is_unwanted else ""))
        console.print(line, soft_wrap=is_log)
        console.print()
    console.print(summarize(samples), soft_wrap=True)


def describe_samples(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return for JSON each answer and its unwanted stretches, as [start, end, text]."""
    lines: list[dict[str, Any]] = []
    for sample in samples:
        unwanted = []
        for span in sample.unwanted or ():
            unwanted.append([span.start, span.end, sample.answer[span.start : span.end]])
        lines.append({"id": sample.id, "prompt": sample.prompt, "answer": sample.answer})
        lines[-1]["unwanted"] = unwanted
    return lines


def render_page(title: str, settings: dict[str, Any], samples: Sequence[Sample]) -> str:
    """Return the samples with their marked words as an HTML page that needs no other file.

    Everything from the data is escaped: forget data may hold markup.
    """
    settings_line = ", ".join(f"{name}: {value}" for name, value in settings.items())
    values = {"title": title, "settings": settings_line, "summary": summarize(samples)}
    return _render("span_page.html", samples, **values)


def render_samples(title: str, samples: Sequence[Sample], most: int = 20) -> str:
    """Return samples as HTML for a notebook, whose colours it takes; at most so many of them.

    Everything from the data is escaped.
    """
    style = "background:rgba(220,50,47,.25);color:inherit;border-bottom:2px solid #dc322f"
    rows = _render("span_samples.html", samples[:most], mark_style=style, title=title)
    more = f"<p>... and {len(samples) - most} more</p>" if len(samples) > most else ""
    return rows + more


def _render(template: str, samples: Sequence[Sample], **values: str) -> str:
    """Return a template of this folder, filled in; jinja2 escapes every value."""
    from jinja2 import Environment, PackageLoader

    from tif.utils.terminal import escape_controls

    environment = Environment(loader=PackageLoader("tif.identifiers", ""), autoescape=True)
    environment.filters["show_controls"] = escape_controls
    values_of_all = {"samples": samples, "split_marked": split_marked, **values}
    return environment.get_template(template).render(values_of_all)
