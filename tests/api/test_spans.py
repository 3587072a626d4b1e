"""tif.identify: samples with their unwanted words, in colour where a notebook shows them."""

import re

import pytest

import tif.identify as command
from tif.api.spans import Spans, identify
from tif.config.errors import ConfigError
from tif.identifiers import span_file

TEXTS = ["Ada Quill lives in Port Lorne.", ("Her number?", "It is 555 0192, or a@b.org.")]


def test_words_and_patterns_are_found_in_every_form_of_sample():
    spans = identify(TEXTS, ["Port Lorne", "email"])
    assert spans.words == [["Port Lorne"], ["a@b.org"]]
    assert [sample.id for sample in spans] == ["samples/0", "samples/1"]
    # Ada Quill lives in Port Lorne / It is 555 0192 or a b.org
    assert spans.share == pytest.approx(5 / 14)


def test_the_marks_are_the_spans_where_no_identifier_is_named():
    spans = identify(["Ada lives in [[Port Lorne]].", "Nothing here."])
    assert spans.words == [["Port Lorne"], []]


def test_a_model_finds_what_the_command_finds_and_is_asked_once(
    llama, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    keys = {"causal_lm": {"model": llama, "threshold": 0.003}}
    spans = identify(TEXTS, {"kind": "causal_lm", **keys})
    (tmp_path / "forget.jsonl").write_text('{"text": "Ada Quill lives in Port Lorne."}\n'
        '{"question": "Her number?", "answer": "It is 555 0192, or a@b.org."}\n')  # fmt: skip
    words = [
        "data.benchmark=text",
        "data.path=forget.jsonl",
        "out=spans.jsonl",
        "identifier.kind=causal_lm",
    ]
    words += [f"identifier.causal_lm.model={llama}", "identifier.causal_lm.threshold=0.003"]
    assert command.main(words) == 0
    assert [s.unwanted for s in spans] == [
        s.unwanted for s in span_file.read_samples("spans.jsonl")
    ]
    assert 0 < spans.share < 1
    capsys.readouterr()
    assert identify(TEXTS, {"kind": "causal_lm", **keys}).words == spans.words
    shown = capsys.readouterr()
    assert "(made before)" in shown.out + shown.err


def test_precision_recall_and_f1_are_counted_by_words():
    gold = identify(["a [[b c]] d", "[[e]] f"])
    identified = identify(["a b [[c d]]", "[[e f]]"])  # right: c, e; wrong: d, f; missed: b
    assert identified.compare(gold) == {"precision": 2 / 4, "recall": 2 / 3, "f1": 4 / 7}


def test_gold_is_spans_or_samples_in_any_form_or_a_span_file(tmp_path):
    identified = identify(["a b [[c d]]", ("Q?", "[[e f]]")])
    marked = ["more [[text]]", ("Q?", "[[e]] f"), "a [[b c]] d"]
    samples = list(identify(marked))
    expected = {"precision": 2 / 4, "recall": 2 / 3, "f1": 4 / 7}
    path = identify(marked).save(tmp_path / "gold.jsonl")
    rows = [
        {"text": "a b c d", "unwanted": ["b c"]},
        {"question": "Q?", "answer": "e f", "unwanted": [[0, 1]]},
    ]
    for gold in (marked, samples, tuple(samples), rows, path, str(path)):
        assert identified.compare(gold) == expected


@pytest.mark.parametrize(
    ("gold", "problem"),
    [
        (3, "gold: want a list of samples or a path, got 3"),
        ([], "gold: want at least one sample, got none"),
        ([None], "gold[0]: want a text, a pair"),
        (
            ["other [[text]]"],
            "gold: no unwanted words of 'a b'; want the same texts, with the right",
        ),
        (["a b"], "gold: no unwanted words of 'a b'; want the same texts, with the right"),
        ("nowhere.jsonl", "nowhere.jsonl: cannot read the span file"),
    ],
)
def test_what_is_no_gold_is_refused_in_one_line(gold, problem):
    with pytest.raises(ValueError, match="^" + re.escape(problem)) as caught:
        identify(["a [[b]]"]).compare(gold)
    assert "\n" not in str(caught.value)


def test_a_saved_file_is_a_span_file(tmp_path):
    spans = identify(TEXTS, "all")
    path = spans.save(tmp_path / "spans.jsonl")
    assert span_file.read_samples(path) == spans.samples
    assert span_file.read_header(path)["identifier"] == {"kind": "all"}


def test_a_notebook_shows_the_words_in_colour_and_no_markup_of_the_data():
    page = identify(["<b>x</b> [[<script>1</script>]] & y"])._repr_html_()
    assert "&lt;script&gt;1&lt;/script&gt;</mark> &amp; y" in page
    assert "<script" not in page
    assert "<b>x" not in page
    spans = Spans(identify(["a [[b]]"] * 30).samples, {"kind": "gold"})
    assert spans._repr_html_().count("<mark") == 20
    assert "... and 10 more" in spans._repr_html_()


def test_problems_come_before_weights_load():
    with pytest.raises(ConfigError) as caught:
        identify([3], "causal_lm", **{"identifier.causal_lm.threshold": 2})
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "samples[0]",
        "identifier.causal_lm.threshold",
        "identifier.causal_lm.model",
    ]
    with pytest.raises(ConfigError, match="^identifier.kind: gold, but 1 of 1"):
        identify(["no marks"])
