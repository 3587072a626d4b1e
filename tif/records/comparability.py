"""Decide whether two evaluations may be compared: rules, prompts, questions, family, tokens."""

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

from tif.records.protocols import QUESTION
from tif.records.types import Evaluation, Record, RecordSet

# Rules that change no loss, so no truth ratio: those of generations, and how many questions are
# asked (the questions themselves are compared). The keys of the prompt format are compared as what
# they render: prompt and answer.
NO_LOSS = {"name", "questions", "max_samples", "max_new_tokens", "prompt_counts", "decoding"}
NO_LOSS |= {"template", "chat", "decoded_prompt"}


def find_mismatch(
    evaluation: Evaluation, retain: Evaluation, sets: Sequence[str] = ("forget",)
) -> str | None:
    """Return why a model and the retain model should not be compared on these sets, or None.

    What one of the evaluations does not say (family, token counts, all rules of a log but their
    name) is no reason.
    """
    missing = find_missing_records(evaluation, retain, sets)
    if missing:
        return missing
    families = {"model family": (evaluation.family, retain.family)}
    rules = families | _pair_rules(evaluation.protocol, retain.protocol)
    for rule, (ours, theirs) in rules.items():
        if None not in (ours, theirs) and ours != theirs:
            ours, theirs = _show_difference(ours, theirs)
            return f"the {rule} is {ours!r}, the retain model's is {theirs!r}"
    for name in sets:
        difference = _find_difference(evaluation, retain, name)
        if difference:
            return difference
    return None


def find_missing_records(
    evaluation: Evaluation, retain: Evaluation, sets: Sequence[str] = ("forget",)
) -> str | None:
    """Return which of two evaluations has no records of one of the sets, or None."""
    for title, records in (("model", evaluation), ("retain model", retain)):
        for name in sets:
            if name not in records.sets:
                others = ", ".join(records.sets) or "none"
                return f"the {title}'s evaluation has no {name} records, only {others}"
    return None


def align_records(ours: Evaluation, theirs: Evaluation, name: str) -> RecordSet | None:
    """Return their records of a set in the order of ours; None if the questions differ."""
    pairs, only_ours, only_theirs = _match(ours, theirs, name)
    if only_ours or only_theirs:
        return None
    return RecordSet(name, tuple(record for _, (record, _) in pairs), theirs.sets[name].data)


def _pair_rules(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return both values of each rule that decides about losses, by its name in a sentence."""
    rules = {"protocol": (ours.get("name"), theirs.get("name"))}
    names = ours.keys() & theirs.keys()
    if len(ours) > 1 and len(theirs) > 1:  # both say all their rules: also what one lacks differs
        names = ours.keys() | theirs.keys()
    for name in sorted(names - NO_LOSS):
        missing = "not recorded"
        rules[f"protocol's {name}"] = ours.get(name, missing), theirs.get(name, missing)
    return rules


Framed = tuple[Record, str | None]  # with the prompt around its question; None = not known


def _match(
    ours: Evaluation, theirs: Evaluation, name: str
) -> tuple[list[tuple[Framed, Framed]], list[Record], list[Record]]:
    """Return our and their records in pairs, and our and their records without a partner.

    Partners have the same question and answer; a question may be asked twice.
    """
    our_prompt, their_prompt = _get_prompt(ours), _get_prompt(theirs)
    waiting: dict[tuple[str, str], list[Framed]] = {}
    for record in theirs.sets[name].records:
        question, prompt = _find_question(record, their_prompt, our_prompt)
        texts = question, _without_blanks(record.answer)
        waiting.setdefault(texts, []).append((record, prompt))
    pairs, only_ours = [], []
    for record in ours.sets[name].records:
        question, prompt = _find_question(record, our_prompt, their_prompt)
        partners = waiting.get((question, _without_blanks(record.answer)))
        if partners:
            pairs.append(((record, prompt), partners.pop(0)))
        else:
            only_ours.append(record)
    return pairs, only_ours, [record for record, _ in itertools.chain(*waiting.values())]


def _get_prompt(evaluation: Evaluation) -> str | None:
    """Return the prompt that an evaluation's rules record, as logs show it; None = not recorded."""
    prompt = evaluation.protocol.get("decoded_prompt")
    return prompt if QUESTION in str(prompt) else None


def _find_difference(ours: Evaluation, theirs: Evaluation, name: str) -> str | None:
    """Return how questions, prompts or token counts of the same answers differ in a set."""
    pairs, only_ours, only_theirs = _match(ours, theirs, name)
    if only_ours or only_theirs:
        counts = [len(x.sets[name].records) for x in (ours, theirs)]
        line = f"{counts[0]} questions against the retain model's {counts[1]}"
        for title, records in (("only here", only_ours), ("only there", only_theirs)):
            if records:
                first = records[0]
                question, answer = shorten(first.prompt, 80), shorten(first.answer, 40)
                line += f"; {title} {len(records)}, first {first.id}: {question!r} -> {answer!r}"
        return line
    differences = []
    for (a, _), (b, _) in pairs:
        if None not in (a.tokens, b.tokens) and a.tokens != b.tokens:
            differences.append(f"{a.id}: {a.tokens} here, {b.tokens} there")
    if differences:
        return (
            "another model family, or end tokens counted in one only: "
            f"{len(differences)} of {len(pairs)} answers have other numbers of tokens, "
            f"first {differences[0]}"
        )
    for (record, prompt), (_, other_prompt) in pairs:
        if None not in (prompt, other_prompt) and prompt != other_prompt:
            here, there = _show_difference(prompt, other_prompt)
            question = f"the prompt around {record.id}, without its blanks,"
            return f"{question} is {here!r}, the retain model's is {there!r}"
    return None


# Recorded prompts carry the template of their model family: "[INST] q [/INST]" (Llama-2),
# "Question: q\n" (Phi, perhaps with the "Answer:" that follows), and the chats of Llama-3, Qwen,
# SmolLM, Gemma, Zephyr and others as they are without their special tokens: "system\n...\nuser\nq\n
# assistant\n". Ours are bare questions.
TEMPLATES = re.compile(
    r"\[INST\](?P<llama>.*)\[/INST\]\s*"
    r"|Question:(?P<phi>.*?)(?:\nAnswer:\s*)?"
    r"|(?:(?:<\|system\|>|system)\n.*)?(?:<\|user\|>|user)\n+(?P<chat>.*?)\s*"
    r"(?:<\|assistant\|>|assistant|model)\s*(?:<think>\s*</think>\s*)?",
    re.DOTALL,
)


def _find_question(
    record: Record, own_prompt: str | None, other_prompt: str | None
) -> tuple[str, str | None]:
    """Return the question of a record and the prompt around it, both without blanks.

    Our records hold bare questions and their rules the prompt (`own_prompt`); logs hold both in one
    text. It is taken apart by the prompt of the other evaluation or, where that does not fit, by
    the forms of TEMPLATES. Recorded texts were decoded from tokens, and decoding may remove blanks:
    row 54 of locuslab/tofu's phi logs has "Mammadov, is" where the data has "Mammadov , is". Two
    questions of a benchmark never differ in blanks alone.
    """
    text = _without_blanks(record.prompt)
    if own_prompt:
        return text, _mark_end(own_prompt)
    parts = _split_by_prompt(text, other_prompt) if other_prompt else None
    match = TEMPLATES.fullmatch(record.prompt.strip())
    if not parts and match:
        start, end = match.span(str(match.lastgroup))
        shares = match.string[:start], match.string[start:end], match.string[end:]
        parts = tuple(map(_without_blanks, shares))
    if not parts:
        return text, None
    before, question, after = parts
    return question, _mark_end(before + QUESTION + after, record.prompt)


def _split_by_prompt(text: str, prompt: str) -> tuple[str, ...] | None:
    """Return what stands before the question of a text without blanks, the question, and the rest.

    None where the prompt does not fit: neither whole, nor from its last line before the question on
    (another date or system message stands further up).
    """
    before, _, after = prompt.partition(QUESTION)
    last_line = _without_blanks(before.rstrip().rpartition("\n")[2])
    before, after = _without_blanks(before), _without_blanks(after)
    if not (before or after) or not text.endswith(after):
        return None
    start = text.removesuffix(after)
    if start.startswith(before):
        return before, start.removeprefix(before), after
    if not last_line or last_line not in start:
        return None
    head, _, question = start.rpartition(last_line)
    return head + last_line, question, after


def _mark_end(prompt: str, text: str | None = None) -> str:
    """Return a prompt without blanks, but with one at its end where the text has one there.

    A prompt that ends in a blank leaves another first token to the answer.
    """
    is_open = (prompt if text is None else text)[-1:].isspace()
    return _without_blanks(prompt) + (" " if is_open else "")


def _show_difference(ours: Any, theirs: Any) -> tuple[Any, Any]:
    """Return two values; of long texts, what stands around the first place where they differ."""
    if not (isinstance(ours, str) and isinstance(theirs, str)):
        return ours, theirs
    if max(len(ours), len(theirs)) <= 120:
        return ours, theirs
    start = max(0, len(os.path.commonprefix([ours, theirs])) - 20)
    return f"...{ours[start : start + 60]}...", f"...{theirs[start : start + 60]}..."


def _without_blanks(text: str) -> str:
    return "".join(text.split())
