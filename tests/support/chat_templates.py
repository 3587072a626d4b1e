"""Chat templates in the forms of published families, and rendering without a process and limits."""

import copy
import pathlib

from transformers.utils import chat_template_utils

from tif.data import templates
from tif.utils import render_chat

USER = "{{ messages[0].content }}"
CHATML = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# In the forms of published families, shortened.
SERVING = {
    "chatml": CHATML,
    "qwen2.5": "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nHi<|im_end|>\n' }}"
               "{% endif %}" + CHATML,
    "llama-2": "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}",
    "llama-3": "{% for m in messages %}"
    "{% set text = '<|start|>' + m.role + '<|end|>\n\n' + m.content | trim + '<|eot|>' %}"
    "{% if loop.first %}{% set text = bos_token + text %}{% endif %}{{ text }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}",
    "gemma": "{{ bos_token }}"
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}"
    "{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "thinking": CHATML.replace("assistant\n' }}{% endif",
                               "assistant\n<think>\n\n</think>\n\n' }}{% endif"),
    "tools": "{% if tools is defined and tools %}{{ tools | tojson }}{% endif %}" + CHATML,
}  # fmt: skip


# Llama-3.2-Instruct's own, without its part about tools.
LLAMA_3_2 = pathlib.Path(__file__).with_name("llama_3_2.jinja").read_text(encoding="utf-8")


def give_chat(tokenizer, template, *tokens, **named):
    """Return a copy of a tokenizer with a chat template and the special tokens that it writes."""
    changed = copy.deepcopy(tokenizer)
    changed.add_special_tokens({"extra_special_tokens": list(tokens)})
    for name, token in named.items():
        setattr(changed, name, token)
    changed.chat_template = template
    return changed


def llama_3_2(tokenizer):
    """Return a copy of a tokenizer with the chat template and special tokens of Llama-3.2."""
    tokens = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    named = {"bos_token": tokens[0], "eos_token": tokens[-1]}
    return give_chat(tokenizer, LLAMA_3_2, *tokens, **named)


def render_here(monkeypatch):
    """Render in this process until the test ends."""

    def render(request):
        monkeypatch.setattr(chat_template_utils, "datetime", render_chat.stop_clock(request["day"]))
        try:
            return render_chat.render_twice(request | {"characters": 20_000})
        except Exception as error:
            raise ValueError(str(error)) from None

    monkeypatch.setattr(templates, "_render", render)
    monkeypatch.setattr(templates, "_find_frame", templates._find_frame.__wrapped__)
