"""Chat templates in the forms of published families, and rendering without a process and limits."""

from tif.data import chat_template
from tif.utils import render_chat

USER = "{{ messages[0].content }}"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# In the forms of published families, shortened.
SERVING = {
    "chatml": CHATML,
    "qwen2.5": "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nHi<|im_end|>\n' }}{% endif %}" + CHATML,
    "llama-2": "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "llama-3": "{% for m in messages %}"
    "{% set text = '<|start|>' + m.role + '<|end|>\n\n' + m.content | trim + '<|eot|>' %}"
    "{% if loop.first %}{% set text = bos_token + text %}{% endif %}{{ text }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}",
    "gemma": "{{ bos_token }}"
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "thinking": CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>\n\n</think>\n\n' }}{% endif"),
    "tools": "{% if tools is defined and tools %}{{ tools | tojson }}{% endif %}" + CHATML,
}  # fmt: skip


def render_here(monkeypatch):
    """Render in this process until the test ends."""

    def render(template, variables, chats):
        request = {"template": template, "variables": variables, "chats": chats, "characters": 20_000}
        try:
            return render_chat.render_twice(request)
        except Exception as error:
            raise ValueError(str(error)) from None

    monkeypatch.setattr(chat_template, "_render", render)
    monkeypatch.setattr(chat_template, "_find_frame", chat_template._find_frame.__wrapped__)
