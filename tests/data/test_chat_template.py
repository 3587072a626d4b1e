"""Chat templates: the text of those that serve is the library's; all others are refused with one line, in seconds."""

import copy
import time

import pytest

from tests.support.chat_templates import CHATML, SERVING, USER, render_here
from tif.config.errors import ConfigError
from tif.data.chat_template import SECONDS, read_chat_frame
from tif.data.encoding import Encoder
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
@pytest.mark.parametrize("question", ["Who?", "  blanks \n", "a\n\nb", "{{ 7 * 7 }} é 🙂 \"'<&>", "x" * 3000])
def test_prompts_are_those_of_the_library(here, chatty, template, question):
    chat = [{"role": "user", "content": question}]
    tokenizer = chatty(template)
    expected = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert read_chat_frame(tokenizer).render(question) == expected


def test_the_template_of_a_real_model_serves(smollm2):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who?"}], tokenize=False, add_generation_prompt=True
    )
    assert Encoder(tokenizer, "chat").render_prompt("Who?") == expected


def test_the_date_is_the_same_each_day(chatty):
    dated = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}none{% endif %} " + CHATML
    assert read_chat_frame(chatty(dated)).before == "10 Apr 2025 <|im_start|>user\n"


NO_END = {
    "a long range": "{% for i in range(10**9) %}x{% endfor %}" + USER,
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}" + USER,
    "loops that write": "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxx{% endfor %}{% endfor %}" + USER,
    "a long text": "{{ 'x' * 10**10 }}" + USER,
    "text that doubles": "{% set n = namespace(s='x' * 1000) %}"
    "{% for i in range(50) %}{% set n.s = n.s + n.s %}{% endfor %}" + USER,
    "a large number": "{{ 10 ** (10 ** 9) }}" + USER,
    "a large number at run time": "{% set b = 9 + messages | length %}{{ (b ** b ** b) | length }}" + USER,
    "megabytes around the question": "{{ 'x' * 10**7 }}" + USER,
    "a macro that calls itself": "{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}" + USER,
    "a long list": "{{ ([0] * 10**9) | length }}" + USER,
    "a format of a billion blanks": "{{ '%1000000000d' % 1 }}" + USER,
    "centred": "{{ 'x' | center(10**10) }}" + USER,
    "indented": "{{ ('a\n' * 10**6) | indent(10**5) }}" + USER,
}  # fmt: skip


def refusal(tokenizer):
    """Return the only line with which a tokenizer's chat template is refused, within seconds."""
    start = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        read_chat_frame(tokenizer)
    assert time.perf_counter() - start < SECONDS + 15  # the machine may be busy
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
def test_a_template_without_an_end_is_stopped(chatty, template):
    assert "give a text with {prompt} as data.template" in refusal(chatty(template))


WRONG = {
    "no question": ("Hello", "does not hold the question exactly once"),
    "twice": (USER + USER, "does not hold the question exactly once"),
    "upper case": ("{{ messages[0].content | upper }}", "does not hold the question exactly once"),
    "cut": ("{{ messages[0].content[:300] }}", "it changes the question"),
    "escaped": ("{{ messages[0].content | e }}", "it changes the question"),
    "one line": ("{{ messages[0].content | replace('\\n', ' ') }}", "it changes the question"),
    "as JSON": ("{{ messages | tojson }}", "it changes the question"),
    "another text for other questions": ("{{ messages[0].content | length }} " + CHATML, "depends on the question"),
    "lists of parts only": ("{% for part in messages[0].content %}{{ part.text }}{% endfor %}", "hold the question"),
    "no answer": ("{{ messages[0].content }}{% if add_generation_prompt %}:{% endif %}", "it drops the answer"),
    "no header of the answer": (CHATML.partition("{% if add")[0], "it ignores add_generation_prompt"),
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
    assert read_chat_frame(chatty({"default": CHATML, "tool": USER})).after == "<|im_end|>\n<|im_start|>assistant\n"


def test_encoders_and_identifiers_render_no_template_themselves(here, chatty, monkeypatch):
    from tests.support.language_models import sample

    tokenizer = chatty(CHATML)
    monkeypatch.setattr(type(tokenizer), "apply_chat_template", None)
    expected = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    assert Encoder(tokenizer, "chat").render_prompt("Who?") == expected
    assert choose_text_before(tokenizer, "chat", "prompt")(sample("Me.", "Who?")) == expected
    assert choose_text_before(tokenizer, "chat", "answer")(sample("Me.", "Who?")) == ""
