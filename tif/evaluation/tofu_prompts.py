"""Questions with answers as the protocols for TOFU ask them: prompt, cut, scored tokens.

The protocols and their sources are in records/protocols.py.
"""

import dataclasses
from collections.abc import Sequence

from tif.config.evaluation import EvalRules
from tif.data.encoding import Encoded, Encoder
from tif.data.samples import Sample
from tif.evaluation.questions import Question, label_answer
from tif.records.protocols import ANSWER, PROTOCOLS, QUESTION, Protocol


def resolve_protocol(rules: EvalRules, encoder: Encoder) -> Protocol:
    """Return the protocol of `eval.protocol` with what the configuration changes in it.

    It is written into the records; records made by other rules are not compared.
    """
    protocol = PROTOCOLS[rules.protocol]
    prompt = _render_prompt(encoder, QUESTION, protocol)
    decoded = encoder.compute_once(f"decoded {prompt}", lambda: encoder.decode_prompt(prompt))
    return dataclasses.replace(
        protocol,
        max_new_tokens=rules.max_new_tokens or protocol.max_new_tokens,
        **encoder.prompts.describe(),
        prompt=prompt,
        decoded_prompt=decoded if QUESTION in decoded else None,
        answer=_render_answer(encoder, protocol),
        max_samples=dataclasses.asdict(rules.max_samples),
    )


def ask_question(encoder: Encoder, sample: Sample, protocol: Protocol) -> Question:
    """Return the question of a sample with its original, paraphrased and perturbed answers."""
    prompt_ids = encoder.encode_text(_render_prompt(encoder, sample.prompt, protocol))
    max_new_tokens = protocol.max_new_tokens
    if protocol.prompt_counts:
        max_new_tokens = max(max_new_tokens - len(prompt_ids), 1)
    texts = [encode_answer(encoder, sample, protocol)]
    for answer in (sample.paraphrased_answer, *sample.perturbed_answers):
        if answer is not None:
            texts.append(encode_answer(encoder, sample, protocol, answer))
    return Question(sample, prompt_ids, texts, max_new_tokens)


def describe_joined_prompts(questions: Sequence[Question]) -> str | None:
    """Return a warning if prompts alone have other tokens than before their answers; else None."""
    texts = [question.texts[0].input_ids[: len(question.prompt_ids)] for question in questions]
    pairs = zip(questions, texts, strict=True)
    joined = [question for question, text in pairs if question.prompt_ids != text]
    if not joined:
        return None
    return (
        f"data.template: {len(joined)} of {len(questions)} prompts have other tokens alone than "
        "with their answers, so generations go on from tokens that training did not see; want a "
        "template without a blank or a line break at its end"
    )


def encode_answer(
    encoder: Encoder, sample: Sample, protocol: Protocol, answer: str | None = None
) -> Encoded:
    """Return the prompt with the sample's answer, or another one, as the protocol scores it.

    The text is cut as the protocol says. All tokens of the answer count as general words. The
    prompt's tokens are those of the prompt alone: where one of them becomes a part of the answer's
    first token (a blank at its end, mostly), that token is not scored. Nor is a blank before the
    answer that is a token alone.

    Raises:
        ValueError: If the prompt leaves no room for an answer.
    """
    answer = sample.answer if answer is None else answer
    first = len(encoder.encode_text(_render_prompt(encoder, sample.prompt, protocol)))
    if protocol.chat_turn and encoder.format.chat and sample.prompt:
        return label_answer(sample.id, encoder.encode_turn(sample.prompt, answer), first)
    encoded = encoder.encode(sample, answer=answer, blank_counts=False)
    if first >= protocol.max_tokens:
        raise ValueError(
            f"sample {sample.id}: its prompt has {first} tokens, and {protocol.name} scores the "
            f"first {protocol.max_tokens} of prompt and answer together; want a shorter prompt"
        )
    if protocol.answer_tag == "prompt":
        first = max(first, encoded.gw.index(True))
    ids = encoded.input_ids[:-1][: protocol.max_tokens]
    if len(ids) < protocol.max_tokens or protocol.end_after_cut:
        ids = [*ids, encoder.get_end(sample.prompt)]
    return label_answer(sample.id, ids, first)


def _render_answer(encoder: Encoder, protocol: Protocol) -> str:
    """Return what follows a prompt, up to the end token, with {answer} for the answer."""
    chat, end = encoder.format.chat, str(encoder.tokenizer.decode([encoder.eos_id]))
    text = encoder.format.blank + ANSWER
    if not (protocol.chat_turn and chat):
        return text + (encoder.turn_end or end)
    text += chat.end
    return text if text.endswith(end) else text + end


def _render_prompt(encoder: Encoder, prompt: str, protocol: Protocol) -> str:
    """Return the text before what the protocol scores and generates."""
    text = encoder.render_prompt(prompt)
    if protocol.answer_tag == "answer" and text and not encoder.format.chat:
        tag = encoder.format.text.rpartition("\n")[2]
        return text if "{prompt}" in tag else text.removesuffix(tag)
    return text
