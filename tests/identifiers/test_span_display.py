import html.parser
import io
import re

import pytest
from rich.console import Console

from tests.support.language_models import TEXTS
from tif.data.samples import Sample, Span
from tif.identifiers.span_display import print_samples, render_page, split_marked

NASTY = Sample(
    '<img id="x">',
    "<script>alert(1)</script> & Who?",
    "</p><b onload='x'>Mira</b> & [red]Dell[/]",
    (Span(18, 22),),
)


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.marked = [], "", []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "mark":
            self.marked.append("")

    def handle_endtag(self, tag):
        self.tags.append("/" + tag)

    def handle_data(self, data):
        self.text += data
        if self.tags and self.tags[-1] == "mark":
            self.marked[-1] += data


def read(text):
    reader = Reader()
    reader.feed(text)
    return reader


def test_the_page_holds_the_data_as_text_and_never_as_markup():
    page = read(render_page("<x>.jsonl", {"kind": "<i>"}, [NASTY]))
    assert {t.strip("/") for t in page.tags} == {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "small", "mark",
    }  # fmt: skip
    assert page.marked[1:] == ["Mira"]  # the first is the legend's
    for text in (
        NASTY.id,
        NASTY.prompt,
        NASTY.answer,
        "<x>.jsonl",
        "kind: <i>",
        "1 of 8 words unwanted",
    ):
        assert text in page.text


def contrast(*colours):
    """WCAG 2.2's contrast ratio of two colours #rrggbb or #rgb: 1 to 21, text needs 4.5."""
    light = []
    for colour in colours:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize(
    ("theme", "canvas"), [(0, "#ffffff"), (1, "#121212")], ids=["light", "dark"]
)
def test_the_page_can_be_read_in_either_theme(theme, canvas):
    rules = re.findall(
        r":root\{(?:color-scheme:light dark;)?([^}]*)\}", render_page("t", {}, [NASTY])
    )
    colours = dict(pair.split(":") for pair in rules[theme].split(";"))
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # a known pair
    assert contrast(colours["--red"], colours["--behind"]) > 4.5
    assert contrast(colours["--faint"], canvas) > 4.5
    assert (
        contrast(colours["--red"], canvas) > 3
    )  # the line under a word: 3 is enough for what is no text


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_parts_are_the_answer_and_nothing_else(text):
    s = Sample("a", "", text, (Span(0, 2), Span(5, 9), Span(len(text) - 1, len(text))))
    assert "".join(part for part, _ in split_marked(s)) == text
    assert [part for part, unwanted in split_marked(s) if unwanted] == [
        text[:2],
        text[5:9],
        text[-1],
    ]
    assert text in read(render_page("t", {}, [s])).text


@pytest.mark.parametrize(
    ("is_terminal", "lines"),
    [(True, ["Mira Kovalenko lives", "in Oslo"]), (False, ["[[Mira]] Kovalenko lives in Oslo"])],
)
def test_a_terminal_breaks_answers_between_words_and_a_log_nowhere(is_terminal, lines):
    sample = Sample("a", "Who?", "Mira Kovalenko lives in Oslo", (Span(0, 4),))
    out = io.StringIO()
    keys = {"force_terminal": is_terminal, "color_system": "standard" if is_terminal else None}
    print_samples([sample], Console(file=out, width=20, highlight=False, **keys))
    text = re.sub("\x1b\\[[0-9;]*m", "", out.getvalue())
    assert text.splitlines()[1:-2] == lines


def test_the_terminal_gets_colour_and_a_file_gets_brackets():
    for keys, expected in (
        ({"force_terminal": True, "color_system": "standard"}, "\x1b[1;31mMira\x1b[0m"),
        ({"force_terminal": False}, "[[Mira]]"),
        ({"force_terminal": True, "no_color": True}, "[[Mira]]"),
    ):
        out = io.StringIO()
        print_samples([NASTY], Console(file=out, width=20, highlight=False, **keys))
        assert expected in out.getvalue()
        assert "[red]Dell[/]" in out.getvalue()  # no markup of rich's either
        assert "<script>" in out.getvalue()
        assert out.getvalue().endswith("1 samples, 1 of 8 words unwanted (12.5%)\n")
