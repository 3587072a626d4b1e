import html.parser
import io

import pytest
from rich.console import Console

from tests.identifiers.lms import TEXTS
from tif.data.samples import Sample, Span
from tif.identifiers.show import in_terminal, page, parts

NASTY = Sample(
    '<img id="x">', "<script>alert(1)</script> & Who?", "</p><b onload='x'>Mira</b> & [red]Dell[/]", (Span(18, 22),)
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
    found = read(page("<x>.jsonl", {"kind": "<i>"}, [NASTY]))
    assert {t.strip("/") for t in found.tags} == {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "small", "mark",
    }  # fmt: skip
    assert found.marked == ["Mira"]
    for text in (NASTY.id, NASTY.prompt, NASTY.answer, "<x>.jsonl", "kind: <i>", "1 of 8 words unwanted"):
        assert text in found.text


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_parts_are_the_answer_and_nothing_else(text):
    s = Sample("a", "", text, (Span(0, 2), Span(5, 9), Span(len(text) - 1, len(text))))
    assert "".join(part for part, _ in parts(s)) == text
    assert [part for part, unwanted in parts(s) if unwanted] == [text[:2], text[5:9], text[-1]]
    assert text in read(page("t", {}, [s])).text


def test_the_terminal_gets_colour_and_a_file_gets_brackets():
    for keys, expected in (
        ({"force_terminal": True, "color_system": "standard"}, "\x1b[1;31mMira\x1b[0m"),
        ({"force_terminal": False}, "[[Mira]]"),
        ({"force_terminal": True, "no_color": True}, "[[Mira]]"),
    ):
        out = io.StringIO()
        in_terminal([NASTY], Console(file=out, width=20, highlight=False, **keys))
        assert expected in out.getvalue()
        assert "[red]Dell[/]" in out.getvalue()  # no markup of rich's either
        assert "<script>" in out.getvalue()
        assert out.getvalue().endswith("1 samples, 1 of 8 words unwanted (12.5%)\n")
