"""Answers with their unwanted words marked, printed or as HTML; the report of `generative`."""

import html
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tif.data.samples import Sample
from tif.identifiers.span_comparison import count_units

if TYPE_CHECKING:
    from rich.console import Console

    from tif.identifiers.generative.identify import Estimate, Report

_STYLE = """:root{color-scheme:light dark;--red:#900;--behind:#ffd6d6;--faint:#595959}
@media(prefers-color-scheme:dark){:root{--red:#ffc4c4;--behind:#611422;--faint:#aaa}}
body{font:16px/1.5 system-ui,sans-serif;max-width:50em;margin:2em auto;padding:0 1em}
body{overflow-wrap:anywhere}
mark{background:var(--behind);color:var(--red);border-bottom:2px solid;print-color-adjust:exact}
h1{font-size:1.3em}h2{font-size:1em;margin:1.5em 0 .2em}p{margin:.2em 0;white-space:pre-wrap}
small{color:var(--faint);font-weight:normal}"""
_LEGEND = (
    "<mark>Red and underlined</mark>: unwanted, it carries the fact. "
    "All else: general, anyone would say it."
)


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
            if not is_unwanted:
                line.append(literal(stretch))
            elif has_colour:
                line.append(literal(stretch, "bold red"))
            else:
                line.append(literal(f"[[{stretch}]]"))
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
    title = _escape(title)
    settings_line = ", ".join(f"{name}: {value}" for name, value in settings.items())
    rows = "\n".join(_render_sample(sample) for sample in samples)
    return f"""<!doctype html>
<html><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title}</title>
<style>{_STYLE}</style></head>
<body><h1>{title}</h1>
<p>{_LEGEND}</p>
<p>{summarize(samples)}</p>
<p><small>{_escape(settings_line)}</small></p>
{rows}
</body></html>
"""


def render_samples(title: str, samples: Sequence[Sample], most: int = 20) -> str:
    """Return samples as HTML for a notebook, whose colours it takes; at most so many of them.

    Everything from the data is escaped.
    """
    mark = "background:rgba(220,50,47,.25);color:inherit;border-bottom:2px solid #dc322f"
    rows = "\n".join(_render_sample(sample) for sample in samples[:most])
    rows = rows.replace("<mark>", f'<mark style="{mark}">')
    more = f"<p>... and {len(samples) - most} more</p>" if len(samples) > most else ""
    return f"<p><b>{_escape(title)}</b></p>\n{rows}{more}"


def _escape(text: str) -> str:
    from tif.utils.terminal import escape_controls

    return html.escape(escape_controls(text))


def _render_sample(sample: Sample) -> str:
    answer = ""
    for stretch, is_unwanted in split_marked(sample):
        escaped = _escape(stretch)
        answer += f"<mark>{escaped}</mark>" if is_unwanted else escaped
    prompt, name = _escape(sample.prompt), _escape(sample.id)
    return f'<h2 dir="auto">{prompt} <small>{name}</small></h2>\n<p dir="auto">{answer}</p>'


def describe_estimate(estimate: "Estimate") -> list[str]:
    """Return lines that say what the generative identifier would ask, and the cost."""
    tokens = estimate.tokens
    lines = [
        f"{estimate.samples} samples: {estimate.requests} requests to send, "
        f"{estimate.cached} answers kept from before",
        f"about {tokens.prompt} prompt tokens and {tokens.answer} answer tokens",
    ]
    if estimate.cost is None:
        lines.append("cost unknown: give price_in and price_out (per million tokens)")
    else:
        lines.append(
            f"cost about {estimate.cost:.4f}, at most {estimate.at_most:.4f}; "
            f"{estimate.paid_before:.4f} paid before"
        )
    return lines


def describe_report(report: "Report") -> list[str]:
    """Return lines that say what the generative identifier asked, found and paid."""
    cost = ""
    if report.cost is not None:
        cost = f", cost {report.cost:.4f} ({report.total_cost:.4f} with what was kept)"
    lines = [
        f"{report.samples} samples, {report.replies} replies got, "
        f"{report.cached} answers kept from before",
        f"{report.tokens.prompt} prompt tokens, {report.tokens.answer} answer tokens{cost}",
    ]
    if report.uncounted:
        lines.append(
            f"{report.uncounted} requests without a token count that can be true: each is counted "
            "at its upper limit"
        )
    if report.agreement is not None:
        lines.append(
            f"agreement between votes: {report.agreement:.3f} (mean Jaccard similarity of words)"
        )
    if report.missing:
        strings = [f"{string!r} ({name})" for name, string in report.missing]
        lines.append(f"{len(strings)} strings are not in their answers: {_shorten(strings)}")
    if report.empty:
        lines.append(f"{len(report.empty)} samples have no unwanted word: {_shorten(report.empty)}")
    for reason, count in Counter(report.failed.values()).most_common():
        names = [name for name, other in report.failed.items() if other == reason]
        lines.append(f"{count} samples have no answer: {reason}: {_shorten(names)}")
    return lines


def _shorten(names: Sequence[str], most: int = 10) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
