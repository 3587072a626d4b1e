"""Where scored tokens stand in an answer, and which of them are unwanted."""

import dataclasses
import json

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from tif.config.evaluation import EvalRules
from tif.data.benchmarks.text import TASKS, read_texts
from tif.data.encoding import Encoder
from tif.data.samples import Sample, Span
from tif.evaluation.answer_tokens import find_ends, find_unwanted, locate_answers
from tif.evaluation.evaluate import build_questions
from tif.evaluation.questions import EvaluationSetup

ANSWER = "Anna 🙂 wrote «Тихий дом», مرحبا بك, in Oslo."


def byte_tokenizer():
    """A tokenizer of bytes and a few merges: an emoji is four tokens."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<end>": 0, **{piece: i + 1 for i, piece in enumerate(alphabet)}}
    merges = [("n", "n"), ("A", "nn"), ("Ġ", "w")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def setup(tasks=None):
    encoder = Encoder(byte_tokenizer(), "Q: {prompt} A:")
    return EvaluationSetup(encoder, EvalRules(), "padded", tasks or {})


def sample(answer=ANSWER, unwanted=None, id="forget/0", prompt="Who?"):
    return Sample(id, prompt, answer, unwanted)


def span(text, answer=ANSWER):
    start = answer.index(text)
    return Span(start, start + len(text))


def test_the_tokens_spell_the_answer_and_unwanted_ones_are_those_of_training():
    forget = [sample(unwanted=(span("🙂"), span("Тихий"), span("Oslo")))]
    ask = setup()
    tokens = locate_answers(ask, {"forget": forget}, forget, None)["forget"]["forget/0"]
    (question,) = build_questions(ask, "forget", forget, None)
    trained = ask.encoder.encode(forget[0])
    scored = [i for i, is_scored in enumerate(question.texts[0].gw) if is_scored]
    assert question.texts[0].input_ids == trained.input_ids
    assert list(tokens.uw) == [trained.uw[i] for i in scored]
    starts = [0, *tokens.ends[:-1]]
    pieces = [ANSWER[start:end] for start, end in zip(starts, tokens.ends, strict=True)]
    assert "".join(pieces) == ANSWER
    assert pieces[-1] == ""  # the end token
    marked = "".join(piece for piece, mark in zip(pieces, tokens.uw, strict=True) if mark)
    assert "".join(marked.split()) == "🙂ТихийOslo"
    assert pieces[:2] == ["Ann", "a"]
    assert tokens.unwanted == tuple((s.start, s.end) for s in forget[0].unwanted)


def test_the_datas_own_marks_stand_beside_the_identifiers_where_they_differ():
    questions, identified = [sample(unwanted=(span("Oslo"),))], [sample(unwanted=(span("Anna"),))]
    tokens = locate_answers(setup(), {"forget": questions}, identified, None)["forget"]["forget/0"]
    starts = [0, *tokens.ends[:-1]]
    for marks, word in ((tokens.uw, "Anna"), (tokens.gold, "Oslo"), (tokens.measured, "Oslo")):
        places = zip(starts, tokens.ends, marks, strict=True)
        assert "".join(ANSWER[start:end] for start, end, mark in places if mark) == word
    same = locate_answers(setup(), {"forget": questions}, questions, None)["forget"]["forget/0"]
    assert same.gold is None
    assert same.measured == same.uw == tokens.gold


def test_the_datas_marks_stand_in_sets_that_no_identifier_saw():
    other = [sample("Bergen.", (Span(0, 6),), id="forget/0/way1")]
    tokens = locate_answers(setup(), {"forget_reworded": other}, [sample()], None)[
        "forget_reworded"
    ]
    assert tokens["forget/0/way1"].uw is None
    assert tokens["forget/0/way1"].gold == (True,) * 6 + (False, False)


def test_nobody_marked_the_answers_of_other_sets():
    forget = [sample(unwanted=(span("Oslo"),))]
    other = [sample("Bergen.", id="retain/0")]
    tokens = locate_answers(setup(), {"retain": other}, forget, None)["retain"]["retain/0"]
    assert tokens.uw is None
    assert tokens.unwanted is None
    assert tokens.ends == (1, 2, 3, 4, 5, 6, 7, 7)


def test_a_passage_of_a_document_has_the_documents_unwanted_words():
    document = "x" * 50 + " Anna lives in Oslo with two cats and in Bergen with none. " + "y" * 50
    forget = sample(document, (span("Anna lives", document), span("Bergen", document)), prompt="")
    passage = sample(document[56:110], id="forget/0/0", prompt="Go on")
    expected = (Span(0, 5), span("Bergen", passage.answer))
    assert passage.answer.startswith("lives in Oslo")
    assert find_unwanted(passage, {"forget/0": forget}) == expected
    tokens = locate_answers(
        setup({"verbmem_forget": TASKS["verbmem"]}), {"verbmem_forget": [passage]}, [forget], None
    )
    assert tokens["verbmem_forget"]["forget/0/0"].unwanted == (
        (0, 5),
        (expected[1].start, expected[1].end),
    )
    short = sample("in Oslo", id="forget/9")
    assert find_unwanted(short, {"forget/0": forget}) is None


def test_passages_of_a_long_document_keep_the_datas_marks_whatever_an_identifier_marked(tmp_path):
    sentence = "Anna lives in Oslo with two cats and in Bergen with none. "
    document = sentence * 100  # 5,800 characters: two passages
    starts = range(0, len(document), len(sentence))
    row = {"text": document, "unwanted": [[start, start + 4] for start in starts]}
    (tmp_path / "forget.json").write_text(json.dumps([row]))
    (tmp_path / "holdout.json").write_text(json.dumps([sentence]))
    data = read_texts(str(tmp_path))
    oslo = [Span(start + 14, start + 18) for start in starts]
    forget = [dataclasses.replace(data.forget[0], unwanted=tuple(oslo))]
    tokens = locate_answers(setup(data.tasks), data.sets, forget, None)
    for set_name, passages in (("forget", 2), ("verbmem_forget", 2), ("privleak_forget", 2)):
        assert len(tokens[set_name]) == passages
        for sample in data.sets[set_name]:
            located = tokens[set_name][sample.id]
            for marks, word in ((located.uw, "Oslo"), (located.measured, "Anna")):
                places = zip([0, *located.ends[:-1]], located.ends, marks, strict=True)
                marked = "".join(sample.answer[start:end] for start, end, mark in places if mark)
                assert marked == word * sample.answer[: located.ends[-1]].count(word) != ""


def test_the_same_answer_asked_in_other_words_has_the_same_unwanted_words():
    forget = sample(unwanted=(span("Oslo"),))
    assert find_unwanted(sample(id="forget/0/paraphrased"), {"forget/0": forget}) == (span("Oslo"),)
    assert find_unwanted(sample("Another answer", id="forget/0"), {"forget/0": forget}) is None


@pytest.mark.parametrize("answer", ["Anna", " Anna", "Anna ", "🙂"])
def test_blanks_at_the_edges_of_an_answer_move_no_token(answer):
    text = sample(answer)
    tokens = locate_answers(setup(), {"forget": [text]}, [], None)["forget"]["forget/0"]
    assert tokens.ends[-1] <= len(answer)
    assert answer[: tokens.ends[-1]].strip() == answer.strip()


def test_tokens_that_spell_another_text_are_left_out():
    encoder = setup().encoder
    assert find_ends(encoder, encoder.encode_text("Bob"), "Anna") is None
