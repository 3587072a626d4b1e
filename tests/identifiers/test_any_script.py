"""Every identifier on Chinese, Arabic, emoji and code."""

import json

import pytest

from tests.identifiers import llm_stub, lms
from tif import config, identifiers
from tif.identifiers.lookup import find
from tif.identifiers.words import words


@pytest.mark.parametrize("name", lms.TEXTS)
def test_every_kind_covers_every_character_once(name, llama, other_llama, untrained_bert):
    """Unwanted spans and the general rest together are the text: spans sorted, apart and inside, at whole words."""
    cfg = config.load(["quickstart.yaml"]).identifier
    cfg.masked_lm.model, cfg.causal_lm.model, cfg.device = untrained_bert, llama, "cpu"
    cfg.contrastive.model, cfg.contrastive.base = llama, other_llama
    text = lms.TEXTS[name] * 12
    starts, ends = ({getattr(w, side) for w in words(text)} for side in ("start", "end"))
    for kind in ("all", "none", "random", "masked_lm", "causal_lm", "contrastive"):
        cfg.kind = kind
        (found,) = identifiers.identify(cfg, [lms.sample(text, "谁?")])
        lms.unwanted(found)
        if kind != "all":
            assert all(s.start in starts and s.end in ends for s in found.unwanted), kind


@pytest.mark.parametrize("name", lms.TEXTS)
@pytest.mark.parametrize("window", [200, 10_000])
def test_generative_finds_each_named_word_wherever_it_stands_in_any_script(name, window, tmp_path):
    def even(text):
        return [text[w.start : w.end] for w in words(text) if (w.end - w.start) % 2 == 0 or "第" < text[w.start] < "药"]

    def answer(body):
        return json.dumps({"words": even(llm_stub.text_of(body["messages"][1]["content"]))})

    text = lms.TEXTS[name] * 12
    with llm_stub.serving() as stub:
        stub.answer = answer
        cfg = config.load(["quickstart.yaml"]).identifier
        cfg.kind = "generative"
        own = {"base_url": stub.url, "model": "m", "window": window, "cache": str(tmp_path)}
        cfg.generative = type(cfg.generative)(**own)
        (found,) = identifiers.identify(cfg, [lms.sample(text, "谁?")])
    assert (len(stub.texts) == 1) == (window > len(text))
    lms.unwanted(found)
    assert found.unwanted == find(even(text), text)[0]
    assert len(found.unwanted) > 20
