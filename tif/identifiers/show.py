"""Answers with their unwanted words marked: in the terminal, and as an HTML page."""

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from tif.data.samples import Sample
from tif.identifiers.compare import labels, word_units

_STYLE = """:root{color-scheme:light dark;--red:#900;--behind:#ffd6d6;--faint:#595959}
@media(prefers-color-scheme:dark){:root{--red:#ffc4c4;--behind:#611422;--faint:#aaa}}
body{font:16px/1.5 system-ui,sans-serif;max-width:50em;margin:2em auto;padding:0 1em;overflow-wrap:anywhere}
mark{background:var(--behind);color:var(--red);border-bottom:2px solid;print-color-adjust:exact}
h1{font-size:1.3em}h2{font-size:1em;margin:1.5em 0 .2em}p{margin:.2em 0;white-space:pre-wrap}
small{color:var(--faint);font-weight:normal}"""
_LEGEND = "<mark>Red and underlined</mark>: unwanted, it carries the fact. All else: general, anyone would say it."


def parts(sample: Sample) -> Iterator[tuple[str, bool]]:
    """The answer in stretches, with whether they are unwanted."""
    at = 0
    for span in sample.unwanted or ():
        if span.start > at:
            yield sample.answer[at : span.start], False
        yield sample.answer[span.start : span.end], True
        at = span.end
    if at < len(sample.answer):
        yield sample.answer[at:], False


def summary(samples: Iterable[Sample]) -> str:
    """How many samples and words, and which share of the words is unwanted."""
    found = [labels(s, word_units) for s in samples]
    flat = [label for own in found for label in own]
    share = sum(flat) / max(1, len(flat))
    return f"{len(found)} samples, {sum(flat):,} of {len(flat):,} words unwanted ({share:.1%})"


def in_terminal(samples: Sequence[Sample], console: Console) -> None:
    """Print prompts and answers, unwanted words in red; in [[double brackets]] where there is no colour."""
    plain = not console.is_terminal or console.no_color
    for s in samples:
        console.print(Text(f"{s.id}  {s.prompt}".rstrip(), style="dim"), soft_wrap=True)
        line = Text()
        for part, unwanted in parts(s):
            line.append(f"[[{part}]]" if unwanted and plain else part, style="bold red" if unwanted else "")
        console.print(line, soft_wrap=True)
        console.print()
    console.print(summary(samples), soft_wrap=True)


def page(title: str, settings: dict[str, Any], samples: Sequence[Sample]) -> str:
    """The same as an HTML page that stands alone. Everything from the data is escaped: forget data may hold markup."""
    rows = []
    for s in samples:
        answer = "".join(f"<mark>{html.escape(p)}</mark>" if unwanted else html.escape(p) for p, unwanted in parts(s))
        head = f'<h2 dir="auto">{html.escape(s.prompt)} <small>{html.escape(s.id)}</small></h2>'
        rows.append(f'{head}\n<p dir="auto">{answer}</p>')
    made = ", ".join(f"{name}: {value}" for name, value in settings.items())
    return (
        '<!doctype html>\n<html><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n"
        f"<p>{_LEGEND}</p>\n<p>{summary(samples)}</p>\n<p><small>{html.escape(made)}</small></p>\n"
        + "\n".join(rows)
        + "\n</body></html>\n"
    )
