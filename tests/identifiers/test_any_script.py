"""Every identifier on Chinese, Arabic, emoji and code."""

import dataclasses
import json

import datasets
import pytest

from tests.support import language_models, llm_server_stub
from tif import identifiers
from tif.config import load as config
from tif.identifiers import span_file
from tif.identifiers.segmentation import find_words
from tif.identifiers.string_search import find_strings


def covered(labelled):
    """The positions that its spans cover, each once."""
    language_models.unwanted(labelled)
    at = [i for span in labelled.unwanted for i in range(span.start, span.end)]
    assert len(at) == len(set(at))
    return set(at)


@pytest.mark.parametrize("name", language_models.TEXTS)
def test_every_kind_covers_every_character_once(name, llama, other_llama, untrained_bert):
    """Spans are sorted, apart and inside the text, and begin and end with a word."""
    cfg = config.load(["quickstart.yaml"]).identifier
    cfg.masked_lm.model, cfg.causal_lm.model, cfg.device = untrained_bert, llama, "cpu"
    cfg.contrastive.model, cfg.contrastive.base = llama, other_llama
    text = language_models.TEXTS[name] * 12
    starts, ends = ({getattr(w, side) for w in find_words(text)} for side in ("start", "end"))
    for kind in ("all", "none", "random", "masked_lm", "causal_lm", "contrastive"):
        cfg.kind = kind
        (labelled,) = identifiers.identify(cfg, [language_models.sample(text, "谁?")])
        at = covered(labelled)
        if kind in ("all", "none"):
            assert at == (set(range(len(text))) if kind == "all" else set())
        else:
            assert all(s.start in starts and s.end in ends for s in labelled.unwanted), kind
            assert 0 < len(at) < len(text), kind


@pytest.mark.parametrize("name", language_models.TEXTS)
def test_gold_spans_come_through_as_they_are_and_through_a_span_file(name, tmp_path):
    text = language_models.TEXTS[name] * 12
    gold = dataclasses.replace(
        language_models.sample(text, "谁?"), unwanted=tuple(find_words(text))[1::3]
    )
    cfg = config.load(["quickstart.yaml"]).identifier
    cfg.kind = "gold"
    assert identifiers.identify(cfg, [gold]) == (gold,)
    span_file.write_spans(tmp_path / "gold.jsonl", [gold], identifiers.describe_settings(cfg, ""))
    cfg.kind, cfg.path = "precomputed", str(tmp_path / "gold.jsonl")
    (labelled,) = identifiers.identify(cfg, [language_models.sample(text, "谁?")])
    expected = {i for w in gold.unwanted for i in range(w.start, w.end)}
    assert covered(labelled) == covered(gold) == expected


@pytest.mark.parametrize("name", language_models.TEXTS)
def test_masks_of_common_words_cover_every_other_character_but_outer_blanks_once(name, tmp_path):
    """Common is every other word, target each third of the rest."""
    text = language_models.TEXTS[name] * 12
    rows = [
        json.dumps({"word": text[w.start : w.end], "start": w.start, "end": w.end})
        for w in find_words(text)
    ]
    row = {
        "question": "谁?",
        "answer": text,
        "common_words": rows[::2],
        "target_words": f"[{','.join(rows[1::6])}]",
    }
    datasets.Dataset.from_list([row]).save_to_disk(tmp_path / "masks")
    cfg = config.load(["quickstart.yaml"]).identifier
    cfg.kind, cfg.path = "precomputed", str(tmp_path / "masks")
    spans = list(find_words(text))
    common, target = (
        {i for w in chosen for i in range(w.start, w.end)} for chosen in (spans[::2], spans[1::6])
    )
    visible = {i for i, char in enumerate(text) if not char.isspace()}
    cfg.rule = "complement"
    (labelled,) = identifiers.identify(cfg, [language_models.sample(text, "谁?")])
    assert covered(labelled) & visible == visible - common
    assert not covered(labelled) & common
    cfg.rule = "targets"
    (labelled,) = identifiers.identify(cfg, [language_models.sample(text, "谁?")])
    assert covered(labelled) == target


@pytest.mark.parametrize("name", language_models.TEXTS)
@pytest.mark.parametrize("window", [200, 10_000])
def test_generative_finds_each_named_word_wherever_it_stands_in_any_script(name, window, tmp_path):
    def even(text):
        chosen = [
            w for w in find_words(text) if (w.end - w.start) % 2 == 0 or "第" < text[w.start] < "药"
        ]
        return [text[w.start : w.end] for w in chosen]

    def answer(body):
        return json.dumps({"words": even(llm_server_stub.text_of(body["messages"][1]["content"]))})

    text = language_models.TEXTS[name] * 12
    with llm_server_stub.serving() as stub:
        stub.answer = answer
        cfg = config.load(["quickstart.yaml"]).identifier
        cfg.kind = "generative"
        keys = {
            "base_url": stub.url,
            "model": "m",
            "window_characters": window,
            "cache": str(tmp_path),
        }
        cfg.generative = type(cfg.generative)(**keys)
        (labelled,) = identifiers.identify(cfg, [language_models.sample(text, "谁?")])
    assert (len(stub.texts) == 1) == (window > len(text))
    language_models.unwanted(labelled)
    assert labelled.unwanted == find_strings(even(text), text)[0]
    assert len(labelled.unwanted) > 20
