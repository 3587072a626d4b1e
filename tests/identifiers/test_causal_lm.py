import contextlib
import math
import types

import pytest
import torch
import transformers

from tests.support import language_models
from tests.support.hangs import no_hang
from tests.support.language_models import SENTENCES, TEXTS, sample, unwanted
from tif.config.data import Fictitious
from tif.config.identifier import make_identifier
from tif.data.benchmarks.fictitious import generate_fictitious
from tif.identifiers import check_models, describe_settings, identify
from tif.identifiers.causal_lm import CausalLM, Contrastive
from tif.identifiers.segmentation import find_words
from tif.utils import terminal

TEMPLATE = "Q: {prompt}\nA:"
SAMPLES = [
    sample(a, "Where was she born?", str(i)) for i, a in enumerate((*SENTENCES, *TEXTS.values()))
]


def causal(model, samples, template=TEMPLATE, batch=4096, **keys):
    cfg = make_identifier(
        kind="causal_lm", device="cpu", tokens_per_batch=batch, causal_lm=CausalLM(model, **keys)
    )
    return identify(cfg, samples, template)


def contrastive(model, base, samples, **keys):
    return identify(
        make_identifier(
            kind="contrastive", device="cpu", contrastive=Contrastive(model, base, **keys)
        ),
        samples,
        TEMPLATE,
    )


def plain(folder, sample, template=TEMPLATE):
    """Return each word's log-probability: full logits after the end token, token by token."""
    net = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    before = f"{template.replace('{prompt}', sample.prompt)} " if template else ""
    read = tokenizer(before + sample.answer, return_offsets_mapping=True)
    ids = [tokenizer.eos_token_id, *read["input_ids"]]
    with torch.no_grad():
        logprobs = net(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
    word_logprobs = []
    for w in find_words(sample.answer):
        a, b = w.start + len(before), w.end + len(before)
        touching = [t for t, (s, e) in enumerate(read["offset_mapping"]) if s < b and e > a]
        word_logprobs.append(sum(logprobs[t, read["input_ids"][t]].item() for t in touching))
    return word_logprobs


def flags(labelled):
    return [
        any(s.start <= w.start and w.end <= s.end for s in labelled.unwanted)
        for w in find_words(labelled.answer)
    ]


def middle(values):
    """Between two values in the middle, so that rounding cannot matter."""
    ordered = sorted(values)
    return (ordered[len(ordered) // 2 - 1] + ordered[len(ordered) // 2]) / 2


@pytest.mark.parametrize("batch", [16, 200, 4096])
def test_a_word_is_unwanted_where_its_tokens_together_are_unlikely(llama, batch):
    expected = [plain(llama, s) for s in SAMPLES]
    border = middle([x for values in expected for x in values if x > -200])
    labelled = causal(llama, SAMPLES, threshold=math.exp(border), batch=batch)
    assert [flags(s) for s in labelled] == [[x < border for x in values] for values in expected]
    assert {True, False} == {f for s in labelled for f in flags(s)}


def test_without_the_prompt_the_answer_starts_the_text(llama):
    expected = plain(llama, SAMPLES[0], template="")
    border = middle(expected)
    (labelled,) = causal(llama, SAMPLES[:1], threshold=math.exp(border), context="answer")
    assert flags(labelled) == [x < border for x in expected]
    bare = [
        sample(s.answer, "", s.id) for s in SAMPLES[:1]
    ]  # a plain document has no prompt to put in a template
    assert flags(causal(llama, bare, threshold=math.exp(border))[0]) == flags(labelled)


def test_the_difference_of_two_models_decides(llama, other_llama):
    pairs = [(plain(llama, s), plain(other_llama, s)) for s in SAMPLES]
    rises = [[t - b for t, b in zip(*pair, strict=True)] for pair in pairs]
    margin = middle([x for values in rises for x in values])
    labelled = contrastive(llama, other_llama, SAMPLES, margin=margin)
    assert [flags(s) for s in labelled] == [[x >= margin for x in values] for values in rises]
    assert all(s.unwanted == () for s in contrastive(llama, llama, SAMPLES, margin=0.5))


def test_models_with_different_tokenizers_compare_by_words(llama, tmp_path):
    from tif.config.schema import Model
    from tif.models.load import load_tokenizer

    other = language_models.llama(
        tmp_path, load_tokenizer(Model(init={"vocab_size": 300}), SENTENCES), seed=2
    )
    rises = [
        [t - b for t, b in zip(plain(llama, s), plain(other, s), strict=True)] for s in SAMPLES
    ]
    margin = middle([x for values in rises for x in values])
    labelled = contrastive(llama, other, SAMPLES, margin=margin)
    assert [flags(s) for s in labelled] == [[x >= margin for x in values] for values in rises]


@pytest.mark.parametrize("text", [" ".join(TEXTS.values()) * 4, "word " * 400, "中" * 300])
def test_long_texts_in_any_script_give_valid_spans(llama, other_llama, text):
    long = sample(text, "Who?")
    for labelled in (
        *causal(llama, [long], window_tokens=40),
        *contrastive(llama, other_llama, [long], window_tokens=40),
    ):
        unwanted(labelled)
    reached = flags(
        causal(llama, [long], window_tokens=40, threshold=1.0)[0]
    )  # but where the model is certain
    assert sum(reached) > 0.9 * len(list(find_words(text)))


@pytest.mark.parametrize("kind", ["masked_lm", "causal_lm", "contrastive"])
def test_the_progress_bar_counts_words_as_they_are_decided(
    kind, llama, other_llama, untrained_bert, monkeypatch
):
    seen, totals = [], []

    @contextlib.contextmanager
    def bar(title, total):
        totals.append(total)
        yield types.SimpleNamespace(advance=lambda steps, note: seen.append((steps, note)))

    monkeypatch.setattr(terminal, "progress_bar", bar)
    cfg = make_identifier(kind=kind, device="cpu", tokens_per_batch=100)
    cfg.masked_lm.model, cfg.causal_lm.model = untrained_bert, llama
    cfg.contrastive.model, cfg.contrastive.base = llama, other_llama
    identify(cfg, SAMPLES, TEMPLATE)
    assert (
        totals
        == [sum(len(list(find_words(s.answer))) for s in SAMPLES)]
        == [sum(steps for steps, _ in seen)]
    )
    assert len([steps for steps, _ in seen if steps]) > 4  # not all at the end
    assert all(note.endswith(" words/s") for _, note in seen)


def test_settings_hold_the_template_where_it_is_read(llama):
    section = make_identifier(kind="causal_lm", causal_lm=CausalLM(llama))
    assert describe_settings(section, "t")["template"] == "t"
    assert "template" not in describe_settings(
        make_identifier(kind="causal_lm", causal_lm=CausalLM(llama, context="answer")), "t"
    )
    check_models(section)


def test_both_models_are_checked(tmp_path, llama, untrained_bert):
    with pytest.raises(ValueError, match="identifier") as error:
        check_models(
            make_identifier(
                kind="contrastive",
                contrastive=Contrastive(str(tmp_path / "x"), str(tmp_path / "y")),
            )
        )
    first, second = str(error.value).splitlines()
    assert first.startswith("identifier.contrastive.model: no folder")
    assert second.startswith("identifier.contrastive.base: no folder")
    check_models(
        make_identifier(kind="contrastive", contrastive=Contrastive("target", llama)),
        leave_out=["target"],
    )


@pytest.mark.slow
@pytest.mark.real
def test_a_real_model_finds_more_gold_than_chance(smollm2):
    samples = generate_fictitious(Fictitious()).forget[:12]
    with no_hang():
        labelled = causal(str(smollm2), samples, "Question: {prompt}\nAnswer:")
    gold, ours = ([f for s in which for f in flags(s)] for which in (samples, labelled))
    right = sum(a and b for a, b in zip(gold, ours, strict=True))
    assert 2 * right / (sum(gold) + sum(ours)) > 1.3 * 2 * sum(gold) / (
        len(gold) + sum(gold)
    )  # better than `all`
