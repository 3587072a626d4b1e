"""Unwanted words by a masked language model."""

import pytest
import torch
import transformers

from tests.support import language_models
from tests.support.language_models import SENTENCES, TEXTS, sample, unwanted
from tif.config.identifier import make_identifier
from tif.data.samples import Span, merge_spans
from tif.identifiers import check_models, describe_settings, identify, masked_lm
from tif.identifiers.language_models import find_context_length, load_language_model
from tif.identifiers.masked_lm import MaskedLM
from tif.models.pretrained import Source

ANSWERS = (
    *SENTENCES,
    "The author Basil Al-Kuwait was born in Oslo, in the winter of 1961.",
    'The mother of "Basil" was a judge (and a baker) in the café.',
    "She was born.",
)


def find(model, samples, tokens_per_batch=4096, **keys):
    return identify(
        make_identifier(kind="masked_lm", device="cpu", tokens_per_batch=tokens_per_batch,
                   masked_lm=MaskedLM(model=model, **keys)),
        samples,
    )  # fmt: skip


def general(labelled):
    """The words between the spans."""
    at, parts = 0, []
    for span in (*labelled.unwanted, Span(len(labelled.answer), len(labelled.answer) + 1)):
        parts += labelled.answer[at : span.start].split()
        at = span.end
    return parts


def as_released(folder, answer, exact=False):
    """Return the common words under the notebooks' rule.

    One mask for a blank-separated word; the likeliest token is compared as text.
    """
    net = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    words, common = answer.split(), []
    for i, word in enumerate(words):
        ids = tokenizer(
            " ".join([*words[:i], tokenizer.mask_token, *words[i + 1 :]]), return_tensors="pt"
        )["input_ids"]
        at = (ids[0] == tokenizer.mask_token_id).nonzero()[0, 0]
        with torch.no_grad():
            guess = tokenizer.decode([net(input_ids=ids).logits[0, at].argmax().item()])
        if guess == (word if exact else word.lower()):
            common.append(word)
    return common


@pytest.mark.parametrize("preset", ["released-tofu", "released-muse"])
def test_the_released_rules_equal_a_plain_loop(trained_bert, preset):
    exact = preset == "released-muse"
    labelled = find(
        trained_bert,
        [sample(a, "A question?", str(i)) for i, a in enumerate(ANSWERS)],
        preset=preset,
    )
    expected = [as_released(trained_bert, a, exact) for a in ANSWERS]
    assert [general(s) for s in labelled] == expected
    assert sum(map(len, expected)) > 15  # the model has learned something, and not everything
    assert sum(map(len, expected)) < sum(len(a.split()) for a in ANSWERS) - 15
    capitals = [w for words in expected for w in words if w[0].isupper()]
    assert bool(capitals) is not exact
    assert not any(w[-1] in ".,)" for words in expected for w in words)


def plain_default(folder, prompt, answer, k, threshold):
    """Every word masked whole in the question and the answer, through the model's own forward."""
    net = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = f"{prompt} {answer}"
    read = tokenizer(text, return_offsets_mapping=True)
    unwanted_words, at = [], len(prompt) + 1
    for word in "".join(" " if c in ',."()' else c for c in answer).split():
        start = text.index(word, at)
        at = start + len(word)
        pieces = [
            t for t, (a, b) in enumerate(read["offset_mapping"]) if a < b and a >= start and b <= at
        ]
        ids = torch.tensor([read["input_ids"]])
        ids[0, pieces] = tokenizer.mask_token_id
        with torch.no_grad():
            chances = net(input_ids=ids).logits[0].softmax(-1)
        good = [
            read["input_ids"][t] in chances[t].topk(k).indices.tolist()
            and chances[t, read["input_ids"][t]] >= threshold
            and read["input_ids"][t] != tokenizer.unk_token_id
            for t in pieces
        ]
        if not all(good):
            unwanted_words.append(word)
    return unwanted_words


@pytest.mark.parametrize(("k", "threshold"), [(1, 0.0), (5, 0.0), (1, 0.5), (5, 0.02)])
def test_the_default_equals_a_plain_loop(trained_bert, k, threshold):
    samples = [sample(a, "Where was the author born?", str(i)) for i, a in enumerate(ANSWERS)]
    labelled = find(trained_bert, samples, top_k=k, threshold=threshold)
    actual = [[w for text in unwanted(s) for w in text.split()] for s in labelled]
    assert actual == [
        plain_default(trained_bert, s.prompt, s.answer, k, threshold) for s in samples
    ]


def plain_cased(folder, answers, same):
    """Yield the words that a cased model does not predict under the comparison `same`."""
    net = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for answer in answers:
        read, unwanted_words, at = tokenizer(answer, return_offsets_mapping=True), [], 0
        for word in "".join(" " if c in ',."()' else c for c in answer).split():
            start = answer.index(word, at)
            at = start + len(word)
            pieces = [t for t, (a, b) in enumerate(read["offset_mapping"]) if a < at and b > start]
            true, ids = [read["input_ids"][t] for t in pieces], torch.tensor([read["input_ids"]])
            ids[0, pieces] = tokenizer.mask_token_id
            with torch.no_grad():
                guesses = net(input_ids=ids).logits[0, pieces].argmax(-1).tolist()
            both = [
                (tokenizer.decode([g]), tokenizer.decode([t]))
                for g, t in zip(guesses, true, strict=True)
            ]
            if tokenizer.unk_token_id in true or not all(same(*pair) for pair in both):
                unwanted_words.append(word)
        yield unwanted_words


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_tokenizers_of_other_kinds_give_whole_words(tmp_path, kind):
    """Byte-level BPE (RoBERTa) and Unigram (XLM-R).

    A piece may hold a blank, be one, or be some bytes of a letter.
    """
    folder = language_models.bert(
        tmp_path, steps=100, tokenizer=language_models.cased_tokenizer(kind)
    )
    answers = [*SENTENCES[:3], "the author was born in Basel, where zoë was a baker."]
    samples = [sample(a, "", str(i)) for i, a in enumerate(answers)]
    for case, same in (
        ("exact", str.__eq__),
        ("fold", lambda a, b: a.strip().casefold() == b.strip().casefold()),
    ):
        actual = [
            [w for text in unwanted(s) for w in text.split()]
            for s in find(folder, samples, case=case)
        ]
        assert actual == list(plain_cased(folder, answers, same))
        assert (
            10 < sum(map(len, actual)) < 44
        )  # of 44; how many varies: training Unigram is not deterministic


def test_a_word_before_a_comma_can_be_general_by_default(trained_bert):
    (labelled,) = find(trained_bert, [sample(SENTENCES[0])])
    assert "Oslo" not in unwanted(labelled)
    (released,) = find(trained_bert, [sample(SENTENCES[0])], preset="released-tofu")
    assert "Oslo," in " ".join(unwanted(released))


def test_a_word_that_the_model_cannot_say_is_unwanted(trained_bert):
    (labelled,) = find(trained_bert, [sample("She was 中 born \u200d😀.")], top_k=1000)
    assert unwanted(labelled) == ["中", "😀"]


@pytest.mark.parametrize("tokens_per_batch", [16, 100, 10_000])
def test_batches_do_not_change_the_words(trained_bert, tokens_per_batch):
    samples = [sample(a, "Who?", str(i)) for i, a in enumerate(ANSWERS)]
    assert find(trained_bert, samples, tokens_per_batch, top_k=3) == find(
        trained_bert, samples, top_k=3
    )


def test_the_output_matrix_runs_on_masked_positions_only(trained_bert):
    reader = load_language_model(
        Source(trained_bert, "key"), "masked LM", make_identifier(device="cpu")
    )
    ids = torch.tensor([reader.tokenize(SENTENCES[0]).ids])
    masked, real = torch.zeros_like(ids, dtype=torch.bool), torch.ones_like(ids)
    masked[0, [2, 5]] = True
    shapes = []
    head = reader.model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape)))
    with torch.no_grad():
        actual = masked_lm.masked_logits(reader.model, ids, real, masked)
    assert shapes == [(2, len(reader.tokenizer))]
    with torch.no_grad():
        torch.testing.assert_close(
            actual, reader.model(input_ids=ids).logits[0, [2, 5]]
        )  # the hook is gone
    assert shapes[1] == (1, ids.shape[1], len(reader.tokenizer))


FAMILIES = {
    "roberta": transformers.RobertaConfig(pad_token_id=1, max_position_embeddings=66),
    "distilbert": transformers.DistilBertConfig(dim=32, hidden_dim=64, n_layers=1, n_heads=2),
    "modernbert": transformers.ModernBertConfig(pad_token_id=0, global_attn_every_n_layers=1),
    "electra": transformers.ElectraConfig(embedding_size=32),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_take_the_short_way_too(family):
    config = FAMILIES[family]
    small = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 64}  # fmt: skip
    for name, value in small.items():
        if family != "distilbert" or name == "vocab_size":
            setattr(config, name, value)
    net = transformers.AutoModelForMaskedLM.from_config(config).eval()
    ids = torch.randint(5, 50, (2, 12))
    masked = torch.zeros_like(ids, dtype=torch.bool)
    masked[0, 3] = masked[1, 7] = masked[1, 8] = True
    with torch.no_grad():
        actual = masked_lm.masked_logits(net, ids, torch.ones_like(ids), masked)
    with torch.no_grad():
        torch.testing.assert_close(actual, net(input_ids=ids).logits[masked])


def test_a_roberta_sees_fewer_tokens_than_it_has_positions():
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=language_models.bert_tokenizer().backend_tokenizer
    )
    assert find_context_length(FAMILIES["roberta"], tokenizer) == 64
    assert find_context_length(transformers.BertConfig(max_position_embeddings=66), tokenizer) == 66
    assert (
        find_context_length(
            transformers.BertConfig(max_position_embeddings=66), language_models.bert_tokenizer()
        )
        == 64
    )


def test_a_long_document_is_labelled_to_its_end(trained_bert):
    text = " ".join(SENTENCES * 6)
    (labelled,) = find(trained_bert, [sample(text, "Who?")], window_tokens=48)
    assert len(unwanted(labelled)) > 5
    (wrong,) = find(trained_bert, [sample(text.replace("baker", "xyz"))])
    assert sum(part.split().count("xyz") for part in unwanted(wrong)) == text.count("baker")


@pytest.mark.parametrize("preset", masked_lm.PRESETS)
@pytest.mark.parametrize("text", [*TEXTS.values(), " ".join(TEXTS.values()) * 3])
def test_spans_are_valid_in_any_script(untrained_bert, text, preset):
    (labelled,) = find(untrained_bert, [sample(text)], preset=preset)
    assert labelled.answer == text
    assert labelled.unwanted == merge_spans(labelled.unwanted)
    assert all(word.strip() for word in unwanted(labelled))


def test_keys_win_over_the_preset():
    assert masked_lm.resolve_preset(MaskedLM()).model == "distilbert-base-uncased"
    released = masked_lm.resolve_preset(MaskedLM(preset="released-muse"))
    assert (released.model, released.case, released.words) == (
        "bert-large-uncased",
        "exact",
        "blanks",
    )
    resolved = masked_lm.resolve_preset(
        MaskedLM(preset="released-muse", case="fold", threshold=0.9)
    )
    assert (resolved.case, resolved.threshold, resolved.pieces) == ("fold", 0.9, "one")
    settings = describe_settings(
        make_identifier(kind="masked_lm", masked_lm=MaskedLM(preset="released-tofu")), "t"
    )
    assert None not in settings.values()
    assert (settings["kind"], settings["preset"], settings["context"]) == (
        "masked_lm",
        "released-tofu",
        "answer",
    )


def test_a_model_that_is_none_is_told_before_weights_load(tmp_path, llama):
    def problem(path):
        with pytest.raises(ValueError, match="^identifier.masked_lm.model: ") as error:
            check_models(make_identifier(kind="masked_lm", masked_lm=MaskedLM(model=str(path))))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no folder" in problem(tmp_path / "nowhere")
    assert "holds no config.json" in problem(tmp_path)
    assert "no model that can be loaded as a masked LM" in problem(llama)
    language_models.bert(tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").unlink()
    assert "holds no weights" in problem(tmp_path / "cut")
