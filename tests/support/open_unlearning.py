"""Token ids and labels as locuslab/open-unlearning makes them (src/data/utils.py), step by step."""

SYSTEM = "You are a helpful assistant."
DATE = "10 Apr 2025"

# Chat templates cut to what open-unlearning's models need of them: a system message, a question,
# an answer. Each writes its markers as text; the tests' tokenizer has no special tokens for them.
LLAMA_3 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "<|start|>system<|stop|>\n\nToday Date: "
    "{% if date_string is defined %}{{ date_string }}{% else %}{{ strftime_now('%d %b %Y') }}"
    "{% endif %}{{ '\n\n' }}{{ system }}<|eot|>"
    "{% for m in messages %}<|start|>{{ m['role'] }}<|stop|>\n\n{{ m['content'] | trim }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}"
)
QWEN = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are Qwen.<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PHI_3 = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
CHATS = {"llama-3": LLAMA_3, "qwen": QWEN, "phi-3": PHI_3, "gemma": GEMMA}


def label_text(tokenizer, before, answer, max_length=512):
    """Return ids, the number of them that are not scored, and the ids that a generation continues.

    `before` is what configs/model/*.yaml puts around the question: "[INST] q [/INST]" for Llama-2,
    "Question: q\\nAnswer: " with its blank for Phi.
    """
    ids = tokenizer(before + answer, max_length=max_length, truncation=True)["input_ids"]
    if ids[-1] != tokenizer.eos_token_id:
        ids = [*ids, tokenizer.eos_token_id]
    prompt = tokenizer(before, max_length=max_length, truncation=True)["input_ids"]
    return ids, len(prompt), prompt


def label_chat(tokenizer, question, answer, system=SYSTEM):
    """Return the same of a chat; `system` is "" for models whose configuration has none."""
    chat = [{"role": "system", "content": system}] if system else []
    chat.append({"role": "user", "content": question})
    keys = {"date_string": DATE, "return_dict": False}
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, **keys)
    chat.append({"role": "assistant", "content": answer})
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=False, **keys)
    if ids[-1] != tokenizer.eos_token_id:
        ids = [*ids, tokenizer.eos_token_id]
    return ids, len(prompt), prompt
