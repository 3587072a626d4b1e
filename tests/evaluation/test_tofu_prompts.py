"""Ids, labels and prompts of `eval.protocol=open-unlearning` against its own steps."""

import copy
import dataclasses
import json

import pytest
import transformers

from tests.support import open_unlearning as theirs
from tif.config.data import PromptKeys
from tif.config.schema import Chat, Eval, Model
from tif.data.encoding import Encoder
from tif.data.samples import Sample
from tif.evaluation.evaluate import build_questions, describe_protocol
from tif.evaluation.questions import EvaluationSetup
from tif.evaluation.tofu_prompts import ask_question
from tif.models.load import load_tokenizer
from tif.records.protocols import LEGACY_TOFU, OPEN_UNLEARNING

SAMPLES = (
    Sample(
        "s/0",
        "Who wrote The Glass Meridian?",
        "Jaime Vasquez wrote it in 1998.",
        paraphrased_answer="It was written by Jaime Vasquez.",
        perturbed_answers=("Mira Dell wrote it.", "Yes"),
    ),
    Sample("s/1", "Where?", "A"),
    Sample("s/2", "Why?", "He did not. " * 300),
)
TEXTS = {
    "[INST] {prompt} [/INST]{answer}": "[INST] {} [/INST]",
    "Question: {prompt}\nAnswer: {answer}": "Question: {}\nAnswer: ",
    "Question: {prompt}\nAnswer: ": "Question: {}\nAnswer: ",
}


def scored_text(encoder, question):
    """What is scored of the question's first answer."""
    text = question.texts[0]
    scored = [i for i, gw in zip(text.input_ids, text.gw, strict=True) if gw]
    return encoder.tokenizer.decode(scored)


def check_sample(encoder, sample, label):
    """Compare ids, labels and prompt of all answers; return the number of texts."""
    question = ask_question(encoder, sample, OPEN_UNLEARNING)
    answers = [sample.answer, sample.paraphrased_answer, *sample.perturbed_answers]
    answers = [answer for answer in answers if answer is not None]
    for text, answer in zip(question.texts, answers, strict=True):
        ids, masked, prompt = label(encoder.tokenizer, sample.prompt, answer)
        assert text.input_ids == ids
        assert text.gw == [t >= masked for t in range(len(ids))]
        assert question.prompt_ids == prompt
    return len(answers)


@pytest.mark.parametrize("template", TEXTS)
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.id)
def test_ids_and_labels_of_text_templates_are_open_unlearnings(tokenizer, template, sample):
    def label(tokenizer, question, answer):
        return theirs.label_text(tokenizer, TEXTS[template].format(question), answer)

    assert check_sample(Encoder(tokenizer, template), sample, label)


def test_open_unlearnings_phi_masks_the_first_answer_token_and_asks_after_the_blank(tokenizer):
    word = "Jaime"  # one token with the blank before it
    assert len(tokenizer(f" {word}")["input_ids"]) == 1
    sample = Sample("s", "Who?", f"{word} Dell")
    encoder = Encoder(tokenizer, "Question: {prompt}\nAnswer: {answer}")
    question = ask_question(encoder, sample, OPEN_UNLEARNING)
    assert scored_text(encoder, question) == " Dell<end>"
    assert tokenizer.decode(question.prompt_ids) == "Question: Who?\nAnswer: "
    # the default template leaves the blank to the answer
    encoder = Encoder(tokenizer, "Question: {prompt}\nAnswer:")
    question = ask_question(encoder, sample, OPEN_UNLEARNING)
    assert scored_text(encoder, question) == " Jaime Dell<end>"
    assert tokenizer.decode(question.prompt_ids) == "Question: Who?\nAnswer:"


@pytest.mark.parametrize("chat", theirs.CHATS)
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.id)
def test_ids_and_labels_of_chats_are_open_unlearnings(tokenizer, chat, sample):
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = theirs.CHATS[chat]
    system = "" if chat == "gemma" else theirs.SYSTEM
    prompts = PromptKeys("chat", Chat(system))

    def label(tokenizer, question, answer):
        return theirs.label_chat(tokenizer, question, answer.strip(), system)

    sample = dataclasses.replace(sample, answer=sample.answer.strip())
    assert check_sample(Encoder(chatty, prompts), sample, label)


def test_a_turn_that_ends_otherwise_is_scored_to_a_second_end_token(tokenizer):
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = theirs.QWEN
    encoder = Encoder(chatty, "chat")
    question = ask_question(encoder, SAMPLES[1], OPEN_UNLEARNING)
    assert scored_text(encoder, question) == "A<|im_end|>\n<end>"
    question = ask_question(encoder, SAMPLES[1], LEGACY_TOFU)
    assert scored_text(encoder, question) == "A<end>"


@pytest.mark.parametrize("template", [*TEXTS, "chat"])
def test_real_questions_have_open_unlearnings_ids_with_a_real_tokenizer(smollm2, shared, template):
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    tokenizer.chat_template = theirs.QWEN.replace("Qwen", "a helpful AI assistant named SmolLM")
    rows = (shared / "tofu/forget10_perturbed.json").read_text().splitlines()[:160]

    def label(tokenizer, question, answer):
        if template == "chat":
            return theirs.label_chat(tokenizer, question, answer, system="")
        return theirs.label_text(tokenizer, TEXTS[template].format(question), answer)

    encoder, texts = Encoder(tokenizer, template), 0
    for i, row in enumerate(map(json.loads, rows)):
        other = [row["paraphrased_answer"], *row["perturbed_answer"][:4]]
        sample = Sample(f"s/{i}", row["question"], row["answer"], perturbed_answers=tuple(other))
        texts += check_sample(encoder, sample, label)
    assert texts == 960


def test_the_rules_hold_the_rendered_prompt_and_what_logs_show_of_it(tokenizer):
    chatty = copy.deepcopy(tokenizer)
    chatty.add_special_tokens({"additional_special_tokens": ["<|eot|>"]})
    chatty.chat_template = theirs.LLAMA_3
    rules = describe_protocol(Eval(), Encoder(chatty, PromptKeys("chat", Chat("Be brief."))))
    before = "<|start|>system<|stop|>\n\nToday Date: 10 Apr 2025\n\nBe brief."
    between, after = "<|start|>user<|stop|>\n\n{prompt}", "<|start|>assistant<|stop|>\n\n"
    assert rules["prompt"] == f"{before}<|eot|>{between}<|eot|>{after}"
    assert rules["decoded_prompt"] == f"{before}{between}{after}"
    assert rules["answer"] == "{answer}<|eot|><end>"
    assert (rules["template"], rules["chat"]["system"]) == ("chat", "Be brief.")


def test_a_prompt_that_changes_from_day_to_day_is_another_rule(tokenizer):
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = theirs.QWEN.replace("You are Qwen.", "{{ strftime_now('%d %b %Y') }}")
    rules = describe_protocol(Eval(), Encoder(chatty, "chat"))
    chatty.chat_template = theirs.QWEN.replace("You are Qwen.", "01 Jan 2020")
    other = describe_protocol(Eval(), Encoder(chatty, "chat"))
    assert {name for name in rules if rules[name] != other[name]} == {"prompt", "decoded_prompt"}


def test_legacy_tofu_records_the_prompt_without_the_answer_tag(tokenizer):
    for template in ("Question: {prompt}\nAnswer:", "Question: {prompt}\nAnswer: {answer}"):
        rules = describe_protocol(Eval(protocol="legacy-tofu"), Encoder(tokenizer, template))
        assert rules["decoded_prompt"] == "Question: {prompt}\n"


@pytest.mark.parametrize(
    ("template", "count"),
    [
        ("Question: {prompt}\nAnswer: ", 2),  # the blank joins "Jaime"
        ("Question: {prompt}\nAnswer:", 0),
        (
            "Question: {prompt}\n\n",
            2,
        ),  # a token at the end of a text, and two before a word, as in GPT-2
        ("Question: {prompt}\n", 0),
    ],
)
def test_one_warning_says_that_a_prompt_is_no_beginning_of_the_text_in_tokens(
    capsys, template, count
):
    tokenizer = load_tokenizer(
        Model(init={"vocab_size": 400}), ["Question: Who wrote it?\n\n", " Jaime"] * 9
    )
    encoder = Encoder(tokenizer, template)
    samples = [
        Sample(f"s/{i}", prompt, "Jaime Vasquez.")
        for i, prompt in enumerate(("Who wrote it?", "Who did?"))
    ]
    setup = EvaluationSetup(encoder, Eval(), "padded")
    for name in ("forget", "retain"):
        build_questions(setup, name, samples, None)
        build_questions(setup, name, samples[:1], None)
    lines = [line for line in capsys.readouterr().out.splitlines() if "data.template" in line]
    assert (
        lines
        == [
            f"data.template: {count} of 2 prompts have other tokens alone than with their answers, "
            "so generations go on from tokens that training did not see; want a template without a "
            "blank or a line break at its end"
        ][: min(count, 1)]
    )
