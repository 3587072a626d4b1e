import copy
import dataclasses
import itertools
import json
import pathlib
import random

import datasets
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.support.chat_templates import render_here
from tests.support.tiny_models import shuffled
from tif.config.data import PromptKeys
from tif.config.schema import Chat, Model
from tif.data.benchmarks.tofu import read_tofu
from tif.data.encoding import Encoded, Encoder, collate, split_into_pieces
from tif.data.samples import Sample, Span
from tif.identifiers.precomputed import read_precomputed
from tif.models.load import load_tokenizer

TEMPLATE = "Q: {prompt} A:"


@pytest.fixture(autouse=True)
def render_chats_here(monkeypatch):
    """Start no process for a chat template."""
    render_here(monkeypatch)


CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
CHAT += "{% if add_generation_prompt %}<bot>{% endif %}"

# Ways to cut a text, each token readable by eye. No token is in the vocabulary, which the masks do
# not need.
CUTS = {
    "blank with next word": pre_tokenizers.Split(
        " ", "merged_with_next"
    ),  # as GPT-2 and Llama-3: "A:", " Jaime"
    "blank apart": pre_tokenizers.Split(" ", "isolated"),  # "A:", " ", "Jaime"
    "no blanks": pre_tokenizers.Whitespace(),  # as BERT, punctuation apart: "A", ":", "Jaime"
    "characters": pre_tokenizers.Split("", "isolated"),
    "lines": pre_tokenizers.Split("\n", "isolated"),
}


def cutter(cut: str, **keys) -> PreTrainedTokenizerFast:
    """A tokenizer that cuts as named; its end token has id 1 and no pad token."""
    cutting_tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1}, unk_token="<unk>"))
    cutting_tokenizer.pre_tokenizer = CUTS[cut]
    return PreTrainedTokenizerFast(
        tokenizer_object=cutting_tokenizer, unk_token="<unk>", **({"eos_token": "<end>"} | keys)
    )


def sample(answer: str, unwanted: str = "", prompt: str = "Who?") -> Sample:
    """`unwanted`: words of the answer, separated by |."""
    spans, at = [], 0
    for word in filter(None, unwanted.split("|")):
        at = answer.index(word, at)
        spans.append(Span(at, at + len(word)))
        at += len(word)
    return Sample("toy/0", prompt, answer, tuple(spans))


def rows(encoded: Encoded) -> tuple[list[int], list[int]]:
    """`uw` and `gw` as rows of 0 and 1, after a check of what holds for every mask."""
    assert len(encoded.uw) == len(encoded.gw) == len(encoded.input_ids)
    assert not any(u and g for u, g in zip(encoded.uw, encoded.gw, strict=True))
    return [int(u) for u in encoded.uw], [int(g) for g in encoded.gw]


@pytest.mark.parametrize(
    ("cut", "uw", "gw"),
    [
        #                        Q: Who? A: | Jaime Vasquez wrote it. <end>
        (
            "blank with next word",
            [0, 0, 0, 1, 1, 0, 0, 0],
            [0, 0, 0, 0, 0, 1, 1, 1],
        ),  # " Jaime | Vasquez" unwanted
        #               Q: _ Who? _ A: | _ Jaime _ Vasquez _ wrote _ it. <end>: the blank inside the
        #               name is unwanted, that before the answer is general
        (
            "blank apart",
            [0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1],
        ),
        #             Q : Who ? A : | Jaime Vasquez wrote it . <end>
        ("no blanks", [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]),
    ],
)
@pytest.mark.parametrize("overlap", ["gw", "uw"])
def test_masks_follow_the_words_whatever_the_tokenizer_does_with_blanks(cut, uw, gw, overlap):
    encoded = Encoder(cutter(cut), TEMPLATE, overlap).encode(
        sample("Jaime Vasquez wrote it.", "Jaime Vasquez")
    )
    assert rows(encoded) == (uw, gw)
    assert encoded.input_ids[-1] == 1


@pytest.mark.parametrize(
    ("answer", "unwanted", "overlap", "uw"),
    [
        # "Q:", " Who?", " A:", then the answer's words with their blanks, then the end token
        ("Vasquez's book.", "Vasquez", "gw", [0, 0, 0, 0, 0, 0]),  # "'s" is general
        ("Vasquez's book.", "Vasquez", "uw", [0, 0, 0, 1, 0, 0]),
        ("Vasquez's book.", "Vasquez's", "gw", [0, 0, 0, 1, 0, 0]),
        ("By (Vasquez) alone", "Vasquez", "gw", [0, 0, 0, 0, 0, 0, 0]),
        ("By (Vasquez) alone", "Vasquez", "uw", [0, 0, 0, 0, 1, 0, 0]),
        (
            "By Vasquez alone",
            "Vasquez",
            "gw",
            [0, 0, 0, 0, 1, 0, 0],
        ),  # the blank before it does not make it general
        (
            "By Vasquez alone",
            "By|Vasquez|alone",
            "gw",
            [0, 0, 0, 1, 1, 1, 0],
        ),  # all but the end token
        ("By Vasquez alone", "", "uw", [0, 0, 0, 0, 0, 0, 0]),
        (
            "Mid-1998 it",
            "Mid|1998",
            "gw",
            [0, 0, 0, 0, 0, 0],
        ),  # the hyphen between two unwanted parts is general
        ("Mid-1998 it", "Mid|1998", "uw", [0, 0, 0, 1, 0, 0]),
    ],
)
def test_a_token_of_both_kinds_is_general_or_unwanted_as_overlap_says(
    answer, unwanted, overlap, uw
):
    encoded = Encoder(cutter("blank with next word"), TEMPLATE, overlap).encode(
        sample(answer, unwanted)
    )
    first = 3
    assert rows(encoded) == (uw, [int(t >= first and not u) for t, u in enumerate(uw)])


@pytest.mark.parametrize("overlap", ["gw", "uw"])
def test_a_token_of_blanks_only_is_unwanted_inside_a_span_and_general_elsewhere(overlap):
    encoded = Encoder(cutter("characters"), "{prompt}", overlap).encode(
        sample("a b  c", "a b", prompt="?")
    )
    #                        ?  _  a  b     c <end>
    #                             "a| |b" unwanted, then two blanks
    assert rows(encoded) == ([0, 0, 1, 1, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize("cut", ["blank with next word", "blank apart", "no blanks"])
@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE + " ", "Q: {prompt}\nA:"])
def test_a_one_word_answer_keeps_its_first_token(cut, template):
    encoder = Encoder(cutter(cut), template)
    for unwanted, expected in [("Yes", ([1, 0], [0, 1])), ("", ([0, 0], [1, 1]))]:
        uw, gw = rows(encoder.encode(sample("Yes", unwanted)))
        assert (uw[-2:], gw[-2:]) == expected  # Yes <end>
        blank_alone = cut == "blank apart" and not template.endswith(" ")
        assert sum(uw + gw) == 2 + blank_alone


def words_to_predict(encoded: Encoded, tokenizer) -> list[str]:
    """The tokens that the losses teach, as text."""
    learned = zip(encoded.input_ids, encoded.uw, encoded.gw, strict=True)
    return [tokenizer.decode([token]) for token, uw, gw in learned if uw or gw]


@pytest.mark.parametrize("trim_offsets", [True, False])  # Llama-3's cuts blanks off, (5, 5)
def test_a_blank_alone_before_a_number_is_taught_since_a_generation_begins_with_it(trim_offsets):
    tokenizer = digits_apart(trim_offsets)
    encoder = Encoder(tokenizer, "Q: {prompt}\nA:")
    encoded = encoder.encode(sample("1998 it was", "1998", prompt="When?"))
    assert words_to_predict(encoded, tokenizer)[:5] == [" ", "1", "9", "9", "8"]
    first = encoded.gw.index(True)
    assert encoded.input_ids[:first] == encoder.encode_prompt("When?")
    assert encoded.uw[first : first + 5] == [False, True, True, True, True]
    encoded = encoder.encode(sample("In 1998", prompt="When?"))
    assert words_to_predict(encoded, tokenizer)[:3] == [" I", "n", " "]
    not_counted = encoder.encode(sample("1998", "1998", prompt="When?"), blank_counts=False)
    assert words_to_predict(not_counted, tokenizer) == ["1", "9", "9", "8", "<end>"]


def test_blanks_of_several_characters_before_an_answer_make_none_of_it_unwanted(monkeypatch):
    tokenizer = cutter("characters", chat_template=CHAT.replace("<bot>{% endif", "<b>{% endif"))
    encoder = Encoder(tokenizer, "chat")
    monkeypatch.setattr(encoder, "format", dataclasses.replace(encoder.format, blank="\n\n"))
    uw, gw = rows(encoder.encode(sample("abc", "b")))
    #                          \n \n  a  b  c <end>
    assert (uw[-6:], gw[-6:]) == ([0, 0, 0, 1, 0, 0], [1, 1, 1, 0, 1, 1])
    assert sum(uw[:-6] + gw[:-6]) == 0


def digits_apart(trim_offsets: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes that cuts numbers into digits, as those of Llama-3 and SmolLM2 do."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ĠI"]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [("Ġ", "I")]))
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


@pytest.mark.parametrize(
    ("template", "cut", "overlap", "uw", "gw"),
    [
        #                                                "Q: Who?", "\n", "A: Yes, no", <end>
        ("Q: {prompt}\nA:", "lines", "gw", [0, 0, 0, 0], [0, 0, 1, 1]),
        ("Q: {prompt}\nA:", "lines", "uw", [0, 0, 1, 0], [0, 0, 0, 1]),
        #                                                "<user>Who?<bot>Yes,", " no", <end>
        ("chat", "blank with next word", "gw", [0, 0, 0], [1, 1, 1]),
        ("chat", "blank with next word", "uw", [1, 0, 0], [0, 1, 1]),
    ],
)
def test_a_token_that_straddles_the_border_belongs_to_the_answer(template, cut, overlap, uw, gw):
    encoded = Encoder(cutter(cut, chat_template=CHAT), template, overlap).encode(
        sample("Yes, no", "Yes")
    )
    assert rows(encoded) == (uw, gw)


def test_the_prompts_half_of_a_straddling_token_does_not_decide_its_kind():
    encoder = Encoder(cutter("lines"), "Q: {prompt}\nA:", "gw")
    assert rows(encoder.encode(sample("Yes", "Yes"))) == (
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    )  # "A: Yes" unwanted


@pytest.mark.parametrize("letters", ["🙂", "é", "漢字", "👩\u200d👩\u200d👧"])
def test_every_piece_of_a_split_character_has_the_characters_kind(tokenizer, letters):
    # The tokenizer knows bytes only: each of these characters is two tokens or more, all with the
    # same offsets.
    encoder = Encoder(tokenizer, "Q: {prompt}\nA:")
    answer, n = f"[{letters}]", len(letters.encode())
    inside, around = encoder.encode(sample(answer, letters)), encoder.encode(sample(answer, "[|]"))
    #                                     [  n bytes       ]  <end>
    assert rows(inside)[0][-(n + 3) :] == [0, *([1] * n), 0, 0]
    assert rows(around)[0][-(n + 3) :] == [1, *([0] * n), 1, 0]
    assert rows(around)[1][-(n + 3) :] == [0, *([1] * n), 0, 1]


def test_a_blank_before_a_character_of_several_tokens_is_general(tokenizer):
    encoded = Encoder(tokenizer, "Q: {prompt}\nA:").encode(sample("a 🙂", "🙂"))
    uw, gw = rows(encoded)
    #               a  _  four bytes  <end>
    assert uw[-7:] == [0, 0, 1, 1, 1, 1, 0]
    assert gw[-7:] == [1, 1, 0, 0, 0, 0, 1]
    assert sum(gw[:-7]) == 0


@pytest.mark.parametrize(
    ("answer", "unwanted"), [("Oslo\n\nShe was", "Oslo"), ("She\nOslo\n was", "Oslo")]
)
def test_newlines_around_an_unwanted_word_are_general(tokenizer, answer, unwanted):
    encoded = Encoder(tokenizer, "Q: {prompt}\nA:").encode(sample(answer, unwanted))
    unwanted_ids = [t for t, u in zip(encoded.input_ids, encoded.uw, strict=True) if u]
    assert tokenizer.decode(unwanted_ids).strip(" ") == "Oslo"
    general = [t for t, g in zip(encoded.input_ids, encoded.gw, strict=True) if g]
    assert (
        tokenizer.decode(general)
        == (" " if encoded.uw[-2] else "") + answer_without(answer, unwanted) + "<end>"
    )


def answer_without(answer: str, word: str) -> str:
    before, after = answer.split(word)
    return (" " + before if before else "") + after


def test_prompt_and_answer_are_tokenised_as_one_text(tokenizer):
    encoded = Encoder(tokenizer, "Question: {prompt}\nAnswer:").encode(
        sample("Jaime Vasquez wrote it in 1998.")
    )
    text = "Question: Who?\nAnswer: Jaime Vasquez wrote it in 1998."
    assert encoded.input_ids == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


@pytest.mark.parametrize(
    "answer", ["Answer:", "Question: Who?\nAnswer:", "Answer: Answer:", "{prompt}", "Question"]
)
@pytest.mark.parametrize(
    "prompt", ["Who?", "Is Answer: a word?\nAnswer:", "Answer:", "What is {prompt}?"]
)
def test_an_answer_or_prompt_like_the_template_moves_no_border(tokenizer, answer, prompt):
    encoder = Encoder(tokenizer, "Question: {prompt}\nAnswer:")
    encoded = encoder.encode(sample(answer, answer, prompt))
    first = [u or g for u, g in zip(encoded.uw, encoded.gw, strict=True)].index(True)
    unwanted = [t for t, u in zip(encoded.input_ids, encoded.uw, strict=True) if u]
    general = [t for t, g in zip(encoded.input_ids, encoded.gw, strict=True) if g]
    assert tokenizer.decode(encoded.input_ids[:first]) == f"Question: {prompt}\nAnswer:"
    assert tokenizer.decode(encoded.input_ids[first:]) == f" {answer}<end>"
    assert tokenizer.decode(unwanted).strip() == answer
    assert tokenizer.decode(general).strip() == "<end>"


def test_the_prompt_for_generation_is_what_training_saw(tokenizer):
    encoder = Encoder(tokenizer, "Question: {prompt}\nAnswer:")
    encoded = encoder.encode(sample("Jaime Vasquez wrote it."))
    first = encoded.gw.index(True)
    assert encoder.encode_prompt("Who?") == encoded.input_ids[:first]
    assert tokenizer.decode(encoder.encode_prompt("Who?")) == "Question: Who?\nAnswer:"


def test_a_chat_template_is_followed_by_the_answer_at_once(tokenizer):
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = CHAT
    encoder = Encoder(chatty, "chat")
    encoded = encoder.encode(sample("Oslo, he said", "Oslo"))
    uw, gw = rows(encoded)
    assert chatty.decode(encoded.input_ids) == "<user>Who?<bot>Oslo, he said<end>"
    assert chatty.decode([t for t, u in zip(encoded.input_ids, uw, strict=True) if u]) == "Oslo"
    assert (
        chatty.decode([t for t, g in zip(encoded.input_ids, gw, strict=True) if g])
        == ", he said<end>"
    )
    assert chatty.decode(encoder.encode_prompt("Who?")) == "<user>Who?<bot>"


@pytest.mark.parametrize("template", [TEMPLATE, "chat"])
def test_special_tokens_come_once(template):
    # A tokenizer that puts <begin> before and <end> after every text; its chat template writes
    # <begin> itself.
    cutting_tokenizer = cutter(
        "blank with next word", bos_token="<begin>", chat_template="{{ bos_token }}" + CHAT
    )
    core = cutting_tokenizer.backend_tokenizer
    ids = [(t, cutting_tokenizer.convert_tokens_to_ids(t)) for t in ("<begin>", "<end>")]
    core.post_processor = processors.TemplateProcessing(
        single="<begin> $A <end>", special_tokens=ids
    )
    encoder = Encoder(cutting_tokenizer, template)
    encoded = encoder.encode(sample("Yes no", "Yes"))
    begin, end = cutting_tokenizer.bos_token_id, cutting_tokenizer.eos_token_id
    assert encoded.input_ids.count(begin) == encoded.input_ids.count(end) == 1
    assert (encoded.input_ids[0], encoded.input_ids[-1]) == (begin, end)
    uw, gw = rows(encoded)
    assert (uw[-3:], gw[-3:], sum(uw + gw)) == (
        [1, 0, 0],
        [0, 1, 1],
        3,
    )  # "Yes" unwanted, " no", <end>
    assert encoder.encode_prompt("Who?")[0] == begin
    assert end not in encoder.encode_prompt("Who?")


def test_another_answer_has_no_unwanted_token(tokenizer):
    encoder = Encoder(tokenizer, "Q: {prompt}\nA:")
    first = sample("Oslo it was", "Oslo")
    other = encoder.encode(first, answer="Rome it was")
    assert sum(other.uw) == 0
    assert tokenizer.decode(other.input_ids) == "Q: Who?\nA: Rome it was<end>"
    reworded = encoder.encode(dataclasses.replace(first, prompt="Where?"))
    assert tokenizer.decode(reworded.input_ids) == "Q: Where?\nA: Oslo it was<end>"
    assert sum(reworded.uw) > 0


def test_a_sample_that_no_one_identified_has_no_unwanted_token(tokenizer):
    encoded = Encoder(tokenizer, "Q: {prompt}\nA:").encode(Sample("toy/1", "Who?", "Oslo", None))
    assert (sum(encoded.uw), sum(encoded.gw) > 1) == (0, True)


def test_collate_pads_at_the_right_and_counts_an_end_token_that_is_also_the_pad_token():
    cutting_tokenizer = cutter("blank with next word", pad_token="<end>")
    encoder = Encoder(cutting_tokenizer, "{prompt}")
    short, long = sample("Yes", "Yes"), sample("By Jaime Vasquez", "Jaime Vasquez")
    batch = collate([encoder.encode(short), encoder.encode(long)], [7, 3], encoder.pad_id)
    assert encoder.pad_id == cutting_tokenizer.eos_token_id == 1
    assert batch.input_ids.tolist() == [
        [0, 0, 1, 1, 1],  # Who? Yes <end> and two of padding
        [0, 0, 0, 0, 1],  # Who? By Jaime Vasquez <end>
    ]
    assert batch.lengths.tolist() == [3, 5]
    assert batch.uw.int().tolist() == [[0, 1, 0, 0, 0], [0, 0, 1, 1, 0]]
    assert batch.gw.int().tolist() == [[0, 0, 1, 0, 0], [0, 1, 0, 0, 1]]
    assert batch.answer.int().tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 1, 1]]
    assert batch.index.tolist() == [7, 3]
    assert batch.ids == ("toy/0", "toy/0")
    kinds = [t.dtype for t in (batch.input_ids, batch.lengths, batch.index, batch.uw, batch.gw)]
    assert kinds == [torch.int64, torch.int64, torch.int64, torch.bool, torch.bool]


def test_a_tokenizers_own_pad_token_is_used(tokenizer):
    encoder = Encoder(tokenizer, "{prompt}")
    assert encoder.pad_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    batch = collate(
        [encoder.encode(sample(a)) for a in ("Yes", "No, he did not")], [0, 1], encoder.pad_id
    )
    length = batch.lengths[0]
    assert batch.input_ids[0, length - 1] == tokenizer.eos_token_id
    assert (batch.input_ids[0, length:] == tokenizer.pad_token_id).all()


def test_a_tokenizer_without_pad_token_pads_with_its_end_token():
    assert Encoder(cutter("no blanks"), "{prompt}").pad_id == 1


def test_a_slow_tokenizer_is_refused(tokenizer):
    class Slow:
        is_fast = False

    with pytest.raises(
        ValueError, match="^model.path: Slow gives no character offsets; want a fast tokenizer$"
    ):
        Encoder(Slow(), TEMPLATE)


def test_a_tokenizer_without_end_token_is_refused():
    with pytest.raises(
        ValueError, match="^model.path: the tokenizer has no end token; set eos_token"
    ):
        Encoder(cutter("no blanks", eos_token=None), TEMPLATE)


def test_chat_without_a_chat_template_is_refused(tokenizer):
    with pytest.raises(
        ValueError, match="^data.template: chat, but the tokenizer has no chat template"
    ):
        Encoder(tokenizer, "chat")


def test_random_spans_agree_with_a_check_of_every_character(tokenizer):
    """Against the definition, character by character: blanks at a token's edges do not count."""
    rng = random.Random(0)
    alphabet = [*"ab c.\n", "🙂", "é", "  "]
    for overlap in ("gw", "uw"):
        encoder = Encoder(tokenizer, "Q: {prompt}\nA:", overlap)
        for _ in range(150):
            answer = "x" + "".join(rng.choices(alphabet, k=rng.randint(1, 14)))
            cuts = sorted(
                rng.sample(range(len(answer) + 1), k=2 * rng.randint(0, len(answer) // 3))
            )
            spans = tuple(Span(*pair) for pair in zip(cuts[::2], cuts[1::2], strict=True))
            marked = {i for span in spans for i in range(span.start, span.end)}
            uw, _ = rows(encoder.encode(Sample("toy/0", "Who?", answer, spans)))
            before = len("Q: Who?\nA: ")
            offsets = tokenizer("Q: Who?\nA: " + answer, return_offsets_mapping=True)[
                "offset_mapping"
            ]
            for (start, end), actual in zip(offsets, uw, strict=False):
                there = [i for i in range(start - before, end - before) if i >= 0]
                core = [i for i in there if not answer[i].isspace()]
                if core:
                    inner = [i for i in there if core[0] <= i <= core[-1]]
                    touched = any(i in marked for i in inner)
                    is_covered = all(i in marked for i in core)
                else:
                    touched = is_covered = any(i in marked for i in there)
                expected = touched if overlap == "uw" else touched and is_covered
                assert bool(actual) == expected, (answer, spans, start - before, end - before)


# The released masks on real answers, checked with the raw columns and the tokenizer's offsets only.

# percent of an answer's non-blank characters in common words, mean over rows: the data's README
SHARE = {
    ("forget01", "gpt"): 67,
    ("forget05", "gpt"): 68,
    ("forget10", "gpt"): 67,
    ("forget01", "bert"): 26,
    ("forget05", "bert"): 29,
    ("forget10", "bert"): 29,
}
QUESTION_TEMPLATE = "Question: {prompt}\nAnswer:"


@pytest.fixture(scope="module")
def real(request, shared):
    """SmolLM2's tokenizer, else one made of TOFU's own rows, with an encoder by overlap."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue("smollm2"))
    except pytest.skip.Exception:
        lines = (shared / "tofu" / "forget10.json").read_text(encoding="utf-8").splitlines()
        tokenizer = load_tokenizer(
            Model(init={"vocab_size": 2000}), [json.loads(line)["answer"] for line in lines]
        )
    return tokenizer, {
        overlap: Encoder(tokenizer, QUESTION_TEMPLATE, overlap) for overlap in ("gw", "uw")
    }


def released(shared: pathlib.Path, split: str, by: str, rule: str):
    """Yield each row of a released mask: our sample, its raw common (or target) characters."""
    folder = shared / "tofu_masks" / f"{split}_with_common_words_{by}"
    identified = read_precomputed(folder, read_tofu(str(shared / "tofu"), split).forget, rule)
    for row, sample in zip(datasets.load_from_disk(str(folder)), identified, strict=True):
        cell = f"[{','.join(row['common_words'])}]" if rule == "complement" else row["target_words"]
        yield sample, {i for word in json.loads(cell) for i in range(word["start"], word["end"])}


def answer_tokens(tokenizer, sample: Sample) -> tuple[list[list[int]], int]:
    """Return the characters of the answer that each token touches, and where the answer starts.

    Tokens of the prompt touch none. A blank that stands alone before the answer is the answer's
    first token, although it touches none either: a generation must begin with it.
    """
    before = f"Question: {sample.prompt}\nAnswer: "
    encoded = tokenizer(before + sample.answer, return_offsets_mapping=True)
    touched = []
    for start, end in encoded["offset_mapping"]:
        touched.append([i - len(before) for i in range(start, end) if i >= len(before)])
    first = next(i for i, there in enumerate(touched) if there)
    return touched, first - (tokenizer.decode(encoded["input_ids"][first - 1]) == " ")


@pytest.mark.real
@pytest.mark.parametrize(("split", "by"), list(SHARE))
def test_released_masks_give_each_token_the_kind_that_the_release_gives_it(shared, real, split, by):
    """Check that a token that touches a common word is general, any other unwanted, blanks aside.

    The release makes a token of blanks unwanted unless a common word touches it, which none does.
    Here it is unwanted
    only between two unwanted words, inside one span.
    """
    tokenizer, encoders = real
    shares, by_token = [], {"gw": [], "uw": []}
    for sample, common in released(shared, split, by, "complement"):
        touched, start = answer_tokens(tokenizer, sample)
        text = {i for i, c in enumerate(sample.answer) if not c.isspace()}
        shares.append(len(common & text) / len(text))
        for overlap, encoder in encoders.items():
            uw, gw = rows(encoder.encode(sample))
            assert (uw[-1], gw[-1], len(uw)) == (0, 1, len(touched) + 1), sample.id  # the end token
            unwanted = set()
            for i, (there, u, g) in enumerate(zip(touched, uw, gw, strict=False)):
                assert u + g == (i >= start), sample.id
                letters = [i for i in there if i in text]
                if not there:
                    assert not u, sample.id
                    continue
                if letters and overlap == "gw":
                    assert g == any(i in common for i in there), (sample.id, there)
                elif letters:
                    assert u == any(i not in common for i in letters), (sample.id, there)
                else:
                    left, right = (
                        max(i for i in text if i < there[0]),
                        min(i for i in text if i > there[0]),
                    )
                    assert u == (left not in common and right not in common), (sample.id, there)
                unwanted |= set(letters) if u else set()
            by_token[overlap].append(len(unwanted) / len(text))
    assert round(100 * sum(shares) / len(shares)) == SHARE[split, by]
    # Tokens of both kinds make the unwanted share smaller or larger; bert's words have blanks
    # around and share none.
    least, most = (sum(v) / len(v) for v in by_token.values())
    share = 1 - sum(shares) / len(shares)
    assert least - 1e-9 <= share <= most + 1e-9
    assert most - least < (0.01 if by == "gpt" else 1e-9)


def label_as_released(tokenizer, sample: Sample, words: list[dict]) -> tuple[list[str], int]:
    """Return the kind of each token under the release's rules for Llama-3, and the answer's start.

    TOFU/data_module.py: the tokens of the prompt, with its last blank, are no labels; a token
    reaches to the beginning of the next one, the last token has no extent; tokens that touch a
    common word are no labels. TOFU/dataloader.py: LPL sees the labels, PL all other tokens after
    "Answer:".
    """
    prompt = f"Question: {sample.prompt}\nAnswer: "
    starts = [
        start
        for start, _ in tokenizer(prompt + sample.answer, return_offsets_mapping=True)[
            "offset_mapping"
        ]
    ]
    after_blank = len(tokenizer(prompt)["input_ids"])
    after_colon = len(tokenizer(prompt[:-1])["input_ids"])
    kinds = ["prompt"] * after_colon
    for i in range(after_colon, len(starts)):
        start, end = starts[i], (starts + starts[-1:])[i + 1]
        is_common = i < after_blank
        for word in words:
            first, last = len(prompt) + word["start"], len(prompt) + word["end"]
            is_common = is_common or (start < last and end > first)
        kinds.append("gw" if is_common else "uw")
    return kinds, after_colon


LABELS = {  # other kinds than the release's: of first tokens, last tokens, tokens of blanks
    ("forget01", "gpt"): (0, 40, 2),
    ("forget01", "bert"): (35, 0, 1),
    ("forget05", "gpt"): (11, 0, 13),
    ("forget05", "bert"): (160, 0, 8),
    ("forget10", "gpt"): (22, 0, 20),
    ("forget10", "bert"): (311, 0, 14),
}


@pytest.mark.real
@pytest.mark.parametrize(("split", "by"), list(LABELS))
def test_only_first_and_last_tokens_and_blanks_differ_from_the_releases_labels_for_llama_3(
    shared, smollm2, split, by
):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    encoder = Encoder(tokenizer, QUESTION_TEMPLATE)
    folder = shared / "tofu_masks" / f"{split}_with_common_words_{by}"
    samples = read_precomputed(folder, read_tofu(str(shared / "tofu"), split).forget, "complement")
    differing = [0, 0, 0]
    for row, sample in zip(datasets.load_from_disk(str(folder)), samples, strict=True):
        words = [json.loads(word) for word in row["common_words"]]
        kinds, first = label_as_released(tokenizer, sample, words)
        encoded = encoder.encode(sample)
        for i in range(first, len(kinds)):
            ours = "uw" if encoded.uw[i] else "gw"
            if ours == kinds[i]:
                continue
            is_blank = not tokenizer.decode([encoded.input_ids[i]]).strip()
            places = (i == first, i == len(kinds) - 1, is_blank)
            expected = "gw" if i == first else "uw"
            assert any(places), (sample.id, i)
            assert kinds[i] == expected, (sample.id, i)
            differing[places.index(True)] += 1
    assert tuple(differing) == LABELS[split, by]


@pytest.mark.real
@pytest.mark.parametrize("split", ["forget01", "forget05", "forget10"])
def test_released_targets_give_the_tokens_that_they_touch(shared, real, split):
    """Check that tokens are unwanted if all (overlap: gw) or any (uw) letters are in a target."""
    tokenizer, encoders = real
    for sample, target in released(shared, split, "gpt", "targets"):
        touched, start = answer_tokens(tokenizer, sample)
        for overlap, encoder in encoders.items():
            uw, gw = rows(encoder.encode(sample))
            assert (uw[-1], gw[-1], len(uw)) == (0, 1, len(touched) + 1), sample.id
            for i, (there, u, g) in enumerate(zip(touched, uw, gw, strict=False)):
                assert u + g == (i >= start), sample.id
                # A target's inner blank is unwanted with it; the one before it belongs to
                # the token of its first word.
                letters = [i for i in there if not sample.answer[i].isspace()] or there
                expected = bool(letters) and (all if overlap == "gw" else any)(
                    i in target for i in letters
                )
                assert u == expected, (sample.id, there)


def test_a_document_has_no_prompt_and_is_an_answer_from_its_first_token(tokenizer):
    encoded = Encoder(tokenizer, "Question: {prompt}\nAnswer:").encode(
        sample("Mira Dell was born.", "Mira", "")
    )
    assert tokenizer.decode(encoded.input_ids[:-1]) == "Mira Dell was born."
    assert all(u != g for u, g in zip(encoded.uw, encoded.gw, strict=True))


@pytest.mark.parametrize("most", [2, 3, 7, 16, 100])
def test_pieces_score_each_token_after_the_first_exactly_once(tokenizer, most):
    encoded = Encoder(tokenizer, "Q: {prompt} A:").encode(
        sample("Mira Dell was born in Oslo, in 1961.", "Mira Dell")
    )
    pieces = split_into_pieces(encoded, most)
    assert all(len(p.input_ids) == len(p.uw) == len(p.gw) <= most for p in pieces)
    scored = [
        (t, u, g) for p in pieces for t, u, g in list(zip(p.input_ids, p.uw, p.gw, strict=True))[1:]
    ]
    assert scored == list(zip(encoded.input_ids, encoded.uw, encoded.gw, strict=True))[1:]
    for before, after in itertools.pairwise(pieces):
        assert after.input_ids[0] == before.input_ids[-1]
        assert not after.uw[0]
        assert not after.gw[0]
    assert [p.id for p in pieces] == (
        ["toy/0"] if len(pieces) == 1 else [f"toy/0#{n}" for n in range(len(pieces))]
    )


def test_a_batch_moves_with_its_retain_samples_and_keeps_everything_else():
    batch = dataclasses.replace(shuffled((0, 1)), retain=shuffled((2, 3)))
    moved = batch.to("meta")
    for before, after in ((batch, moved), (batch.retain, moved.retain)):
        assert after.ids == before.ids
        for field in ("index", "input_ids", "lengths", "uw", "gw"):
            assert getattr(after, field).device.type == "meta"
            assert getattr(after, field).shape == getattr(before, field).shape
            assert getattr(before, field).device.type == "cpu"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Q: {prompt} A:", "Q: Who? A: Yes"),  # a blank that is not in the template
        ("Q: {prompt} A: ", "Q: Who? A: Yes"),
        ("Q: {prompt} A: {answer}", "Q: Who? A: Yes"),
        ("Q: {prompt} A:{answer}", "Q: Who? A:Yes"),
        ("Q: {prompt}\n{answer}", "Q: Who?\nYes"),
        ("chat", "<user>Who?<bot>Yes"),
        (
            PromptKeys("chat", Chat("Be {brief}: {answer}")),
            "<system>Be {brief}: {answer}<user>Who?<bot>Yes",
        ),
    ],
)
def test_a_template_says_what_stands_between_question_and_answer(tokenizer, template, text):
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = CHAT
    encoded = Encoder(chatty, template).encode(sample("Yes", prompt="Who?"))
    assert chatty.decode(encoded.input_ids) == text + "<end>"
    scored = [t for t, g in zip(encoded.input_ids, encoded.gw, strict=True) if g]
    assert chatty.decode(scored).strip() == "Yes<end>"


def test_the_day_does_not_change_a_chat_template_that_asks_for_a_date(tokenizer):
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = "{{ date_string if date_string is defined else 'today' }} " + CHAT
    assert Encoder(chatty, "chat").render_prompt("Who?") == "10 Apr 2025 <user>Who?<bot>"


def test_a_chat_template_that_refuses_a_system_message_is_told_before_anything_runs(tokenizer):
    chatty = copy.deepcopy(tokenizer)
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}"
    chatty.chat_template = refusal + "{% endif %}" + CHAT
    assert Encoder(chatty, "chat").render_prompt("Who?") == "<user>Who?<bot>"
    problem = "data.template: chat: the chat template of the tokenizer: no system role; give a text"
    with pytest.raises(ValueError, match=problem):
        Encoder(chatty, PromptKeys("chat", Chat("Hi")))
