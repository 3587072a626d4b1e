"""Chat templates: those that serve give the library's text; others are one line."""

import copy
import datetime
import json

import pytest
from tokenizers.processors import TemplateProcessing
from transformers.utils import chat_template_utils

from tests.support.chat_templates import (
    CHATML,
    LLAMA_3_2,
    SERVING,
    USER,
    give_chat,
    llama_3_2,
    render_here,
)
from tests.support.evaluation_logs import SHARED, real
from tests.support.hangs import HANG, no_hang
from tif.config.data import PromptKeys
from tif.config.errors import ConfigError
from tif.config.schema import Chat
from tif.data import templates
from tif.data.encoding import Encoder
from tif.data.samples import Sample
from tif.data.templates import read_chat_frame
from tif.identifiers.causal_lm import choose_text_before


@pytest.fixture
def chatty(tokenizer):
    """Return the tokenizer with a chat template."""

    def make(template):
        changed = copy.deepcopy(tokenizer)
        changed.chat_template, changed.bos_token = template, "<pad>"
        return changed

    return make


@pytest.fixture
def here(monkeypatch):
    """Render in this process."""
    render_here(monkeypatch)


@pytest.mark.parametrize("template", SERVING.values(), ids=SERVING)
@pytest.mark.parametrize(
    "question", ["Who?", "  blanks \n", "a\n\nb", "{{ 7 * 7 }} é 🙂 \"'<&>", "x" * 3000]
)
def test_prompts_are_those_of_the_library(here, chatty, template, question):
    chat = [{"role": "user", "content": question}]
    tokenizer = chatty(template)
    expected = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert read_chat_frame(tokenizer).render(question) == expected


def test_auto_is_the_chat_template_where_the_tokenizer_has_one_and_else_plain(
    here, chatty, tokenizer
):
    chat_encoder = Encoder(chatty(CHATML), "auto")
    assert (
        chat_encoder.render_prompt("Who?")
        == "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat_encoder.prompts.describe()["template"] == "chat"
    plain = Encoder(tokenizer, "auto")
    assert plain.render_prompt("Who?") == "Question: Who?\nAnswer:"
    assert plain.prompts.describe() == {"template": "Question: {prompt}\nAnswer:"}


def test_a_document_begins_with_the_special_token_that_a_chat_writes_itself(here, tokenizer):
    chat = llama_3_2(tokenizer)
    begin = chat.bos_token_id
    chat.backend_tokenizer.post_processor = TemplateProcessing(
        "<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
    )
    encoder, text = Encoder(chat, "chat"), "Ada lives here."
    expected = chat(text)["input_ids"]
    assert expected[0] == begin
    assert encoder.encode(Sample("s", "", text)).input_ids == [*expected, chat.eos_token_id]
    assert encoder.encode_text(text) == expected
    question_ids = encoder.encode(Sample("s", "Where?", text)).input_ids
    assert [i for i, token in enumerate(question_ids) if token == begin] == [0]
    assert encoder.encode_prompt("Where?").count(begin) == 1


def test_the_template_of_a_real_model_serves(smollm2):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who?"}], tokenize=False, add_generation_prompt=True
    )
    assert Encoder(tokenizer, "chat").render_prompt("Who?") == expected


def test_the_date_is_the_same_each_day(chatty):
    dated = (
        "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}none{% endif %} "
        + CHATML
    )
    assert read_chat_frame(chatty(dated)).before == "10 Apr 2025 <|im_start|>user\n"


OPEN_UNLEARNING = PromptKeys(
    "chat", Chat(system="You are a helpful assistant.")
)  # and its date by default


@real
@pytest.mark.parametrize(
    ("log", "split"), [("full_forget01", "forget01"), ("full_forget10", "forget10")]
)
def test_llama_3_2s_prompts_are_those_of_open_unlearnings_logs_to_the_letter(tokenizer, log, split):
    encoder = Encoder(llama_3_2(tokenizer), OPEN_UNLEARNING)
    content = json.loads((SHARED / f"data/ou_logs/Llama-3.2-1B-Instruct__{log}.json").read_text())
    files = {
        "forget": split,
        "retain": "retain_perturbed",
        "ra": "real_authors",
        "wf": "world_facts",
    }
    compared = 0
    for prefix, file in files.items():
        rows = (SHARED / f"data/tofu/{file}.json").read_text().splitlines()
        for number, row in content[f"{prefix}_Q_A_ROUGE"]["value_by_index"].items():
            question = json.loads(rows[int(number)])["question"]
            assert encoder.decode_prompt(encoder.render_prompt(question)) == row["input"]
            compared += 1
    assert compared == {"forget01": 40, "forget10": 400}[split] + 400 + 100 + 117


@pytest.mark.parametrize("year", [2026, 2031])
def test_llama_3_2s_prompt_is_the_same_on_any_day(tokenizer, monkeypatch, year):
    tokenizer, day = llama_3_2(tokenizer), datetime.datetime(year, 1, 2)
    clock = type("Clock", (datetime.datetime,), {"now": staticmethod(lambda: day)})
    monkeypatch.setattr(chat_template_utils, "datetime", clock)
    dated = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who?"}], tokenize=False, add_generation_prompt=True
    )
    assert f"02 Jan {year}" in dated  # as the library renders it
    expected = dated.replace(f"02 Jan {year}", "10 Apr 2025")
    render_here(monkeypatch)  # with this clock in place
    assert Encoder(tokenizer, "chat").render_prompt("Who?") == expected


def test_a_chat_template_gets_the_date_of_the_configuration_in_any_form(chatty):
    dated = "{{ strftime_now('%A %d.%m.%Y') }}, {{ date_string }} " + CHATML
    frame = read_chat_frame(chatty(dated), Chat(date="26 Jul 2024"))
    assert frame.before == "Friday 26.07.2024, 26 Jul 2024 <|im_start|>user\n"


THINKS = CHATML.replace(
    "assistant\n' }}{% endif",
    "assistant\n' }}{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif",
)


def test_a_chat_template_gets_the_variables_of_the_configuration(here, chatty):
    chat = [{"role": "user", "content": "Who?"}]
    tokenizer = chatty(THINKS)
    for kwargs in ({}, {"enable_thinking": False}, {"enable_thinking": True}):
        expected = tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True, **kwargs
        )
        assert read_chat_frame(tokenizer, Chat(kwargs=kwargs)).render("Who?") == expected
        assert ("<think>" in expected) == (kwargs == {"enable_thinking": False})


@pytest.mark.parametrize(
    ("template", "chat", "line"),
    [
        (THINKS, Chat(kwargs={"enable_thinkin": False}),
         "data.chat.kwargs: the chat template of the tokenizer has no "
         "variable 'enable_thinkin'"),
        (CHATML.replace("for m in messages", "for m in messages if m.role != 'system'"),
         Chat(system="Be brief."),
         "data.template: chat: the chat template of the tokenizer: it drops the system message; "
         "want data.chat.system empty; give a text with {prompt} as data.template"),
    ],
)  # fmt: skip
def test_what_a_chat_template_would_ignore_is_refused(here, chatty, template, chat, line):
    with pytest.raises(ConfigError) as caught:
        read_chat_frame(chatty(template), chat)
    assert str(caught.value) == line


ENDS = {  # the special tokens of each family; the text after the answer's turn end
    "llama-3.2": (LLAMA_3_2, ("<|eot_id|>",), {"eos_token": "<|eot_id|>"}, ""),
    "qwen2.5": (SERVING["qwen2.5"], ("<|im_end|>",), {"eos_token": "<|im_end|>"}, "\n"),
    "gemma": (SERVING["gemma"], ("<end_of_turn>", "<eos>"), {"eos_token": "<eos>"}, "\n"),
    "llama-2": (SERVING["llama-2"], ("</s>",), {"eos_token": "</s>"}, ""),
}  # fmt: skip


@pytest.mark.parametrize(("template", "tokens", "names", "after"), ENDS.values(), ids=ENDS)
def test_an_answer_is_joined_and_ended_as_in_a_whole_conversation(
    here, tokenizer, template, tokens, names, after
):
    tokenizer = give_chat(tokenizer, template, *tokens, bos_token="<pad>", **names)
    messages = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Me, he said."},
    ]
    conversation = tokenizer.apply_chat_template(
        messages, tokenize=False, date_string="10 Apr 2025"
    )
    conversation = conversation.removesuffix(after)
    encoder = Encoder(tokenizer, "chat")
    encoded = encoder.encode(Sample("s", "Who?", "Me, he said."))
    assert encoded.input_ids == tokenizer(conversation, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(encoded.input_ids[-1:]) == tokens[0]
    assert encoded.gw[-1]
    assert set(encoder.end_ids) == set(
        tokenizer.convert_tokens_to_ids(list(tokens))
    )  # these end a generation


NO_END = {
    "a long range": "{% for i in range(10**9) %}x{% endfor %}" + USER,
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
                      "{% endfor %}" + USER,
    "loops that write": "{% for i in range(99999) %}{% for j in range(99999) %}"
                        "xxxxxxxx{% endfor %}{% endfor %}" + USER,
    "a long text": "{{ 'x' * 10**10 }}" + USER,
    "text that doubles": "{% set n = namespace(s='x' * 1000) %}"
    "{% for i in range(50) %}{% set n.s = n.s + n.s %}{% endfor %}" + USER,
    "a large number": "{{ 10 ** (10 ** 9) }}" + USER,
    "a large number at run time": "{% set b = 9 + messages | length %}"
                                  "{{ (b ** b ** b) | length }}" + USER,
    "megabytes around the question": "{{ 'x' * 10**7 }}" + USER,
    "a macro that calls itself": "{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}" + USER,
    "a long list": "{{ ([0] * 10**9) | length }}" + USER,
    "a format of a billion blanks": "{{ '%1000000000d' % 1 }}" + USER,
    "centred": "{{ 'x' | center(10**10) }}" + USER,
    "indented": "{{ ('a\n' * 10**6) | indent(10**5) }}" + USER,
}  # fmt: skip


def refusal(tokenizer):
    """Return the only line with which a tokenizer's chat template is refused."""
    with pytest.raises(ConfigError) as caught, no_hang(2 * HANG):
        read_chat_frame(tokenizer)
    (line,) = str(caught.value).splitlines()
    assert line.startswith("data.template: chat")
    return line


AT_ONCE = ("loops in loops", "a long text")


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(template, id=name, marks=() if name in AT_ONCE else pytest.mark.slow)
        for name, template in NO_END.items()
    ],
)
def test_a_template_without_an_end_is_stopped(chatty, template, monkeypatch):
    """By the limits of its process, long before the template or this process's patience end."""
    monkeypatch.setattr(templates, "WAIT", HANG)  # the start of a process on a busy machine
    if template.startswith("{% for"):  # it is the limit on time that ends these
        monkeypatch.setattr(templates, "SECONDS", 1)
    assert "give a text with {prompt} as data.template" in refusal(chatty(template))


WRONG = {
    "no question": ("Hello", "does not hold the question exactly once"),
    "twice": (USER + USER, "does not hold the question exactly once"),
    "upper case": ("{{ messages[0].content | upper }}", "does not hold the question exactly once"),
    "cut": ("{{ messages[0].content[:300] }}", "it changes the question"),
    "escaped": ("{{ messages[0].content | e }}", "it changes the question"),
    "one line": ("{{ messages[0].content | replace('\\n', ' ') }}", "it changes the question"),
    "as JSON": ("{{ messages | tojson }}", "it changes the question"),
    "another text for other questions": ("{{ messages[0].content | length }} " + CHATML,
                                         "depends on the question"),
    "lists of parts only": ("{% for part in messages[0].content %}{{ part.text }}{% endfor %}",
                            "hold the question"),
    "no answer": ("{{ messages[0].content }}{% if add_generation_prompt %}:{% endif %}",
                  "it drops the answer"),
    "no header of the answer": (CHATML.partition("{% if add")[0],
                                "it ignores add_generation_prompt"),
    "by chance": ("{{ range(10**5 - 1) | random }} " + CHATML, "another text each time"),
    "an exception": ("{{ raise_exception('I want\na system prompt') }}", "I want a system prompt"),
    "an unknown variable's part": ("{{ config.model.name }}" + CHATML, "'config' is undefined"),
    "an unknown filter": ("{{ messages | nonsense }}", "nonsense"),
    "a syntax error": ("{% for m in messages %}", "Unexpected end of template"),
    "a way out": ("{{ ''.__class__.__mro__[1].__subclasses__() }}" + CHATML, "unsafe"),
    "a file": ("{% include '/etc/passwd' %}" + CHATML, "no loader"),
    "an empty template": (" ", "hold the question"),
}  # fmt: skip


@pytest.mark.parametrize(("template", "reason"), WRONG.values(), ids=WRONG)
def test_a_template_that_does_not_serve_is_refused_by_name(here, chatty, template, reason):
    tokenizer = chatty(template)
    tokenizer.name_or_path = "some/model"
    line = refusal(tokenizer)
    assert line.startswith("data.template: chat: the chat template of some/model: ")
    assert reason in line


def test_a_tokenizer_without_a_template_or_with_several_unnamed_ones_is_refused(here, chatty):
    assert "has no chat template" in refusal(chatty(None))
    assert "has no chat template" in refusal(chatty({"rag": CHATML, "tool": CHATML}))
    assert (
        read_chat_frame(chatty({"default": CHATML, "tool": USER})).after
        == "<|im_end|>\n<|im_start|>assistant\n"
    )


def test_encoders_and_identifiers_render_no_template_themselves(here, chatty, monkeypatch):
    from tests.support.language_models import sample

    tokenizer = chatty(CHATML)
    monkeypatch.setattr(type(tokenizer), "apply_chat_template", None)
    expected = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    assert Encoder(tokenizer, "chat").render_prompt("Who?") == expected
    assert choose_text_before(tokenizer, "chat", "prompt")(sample("Me.", "Who?")) == expected
    assert choose_text_before(tokenizer, "chat", "answer")(sample("Me.", "Who?")) == ""
