"""Decide whether two evaluations may be compared: questions, protocol, model family, tokens.

Called by the metrics that compare with the retain model, and by `training.plan`.
"""

import itertools
import re
from collections.abc import Sequence
from textwrap import shorten

from tif.records.types import Evaluation, Record, RecordSet

# Rules that change no loss, so no truth ratio: those of generations, and how many questions are
# asked (the questions themselves are compared).
NO_LOSS = {"name", "questions", "max_samples", "max_new_tokens", "prompt_counts", "decoding"}


def find_mismatch(
    evaluation: Evaluation, retain: Evaluation, sets: Sequence[str] = ("forget",)
) -> str | None:
    """Return why a model and the retain model should not be compared on these sets, or None.

    What one of the evaluations does not say (family, protocol, token counts) is no reason.
    """
    missing = find_missing_records(evaluation, retain, sets)
    if missing:
        return missing
    ours, theirs = evaluation.protocol, retain.protocol
    rules = {
        "model family": (evaluation.family, retain.family),
        "protocol": (ours.get("name"), theirs.get("name")),
    }
    for rule in sorted((ours.keys() & theirs.keys()) - NO_LOSS):
        rules[f"protocol's {rule}"] = ours[rule], theirs[rule]
    for rule, (our_value, their_value) in rules.items():
        if None not in (our_value, their_value) and our_value != their_value:
            return f"the {rule} is {our_value!r}, the retain model's is {their_value!r}"
    for name in sets:
        difference = _find_difference(evaluation.sets[name], retain.sets[name])
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


def align_records(ours: RecordSet, theirs: RecordSet) -> RecordSet | None:
    """Return their records in the order of ours, question by question; None if questions differ."""
    aligned, only_ours, only_theirs = _match(ours.records, theirs.records)
    if only_ours or only_theirs:
        return None
    return RecordSet(theirs.name, tuple(aligned), theirs.data)


def _match(
    ours: Sequence[Record], theirs: Sequence[Record]
) -> tuple[list[Record], list[Record], list[Record]]:
    """Return their records beside ours, and our and their records without a partner.

    Partners have the same question and answer; a question may be asked twice.
    """
    waiting: dict[tuple[str, str], list[Record]] = {}
    for record in theirs:
        waiting.setdefault(_comparable_texts(record), []).append(record)
    aligned, only_ours = [], []
    for record in ours:
        partners = waiting.get(_comparable_texts(record))
        if partners:
            aligned.append(partners.pop(0))
        else:
            only_ours.append(record)
    return aligned, only_ours, list(itertools.chain(*waiting.values()))


def _find_difference(ours: RecordSet, theirs: RecordSet) -> str | None:
    """Return how questions, or token counts of the same answers, differ between two sets."""
    aligned, only_ours, only_theirs = _match(ours.records, theirs.records)
    if only_ours or only_theirs:
        line = f"{len(ours.records)} questions against the retain model's {len(theirs.records)}"
        for title, records in (("only here", only_ours), ("only there", only_theirs)):
            if records:
                first = records[0]
                question, answer = shorten(first.prompt, 80), shorten(first.answer, 40)
                line += f"; {title} {len(records)}, first {first.id}: {question!r} -> {answer!r}"
        return line
    differences = []
    for a, b in zip(ours.records, aligned, strict=True):
        if None not in (a.tokens, b.tokens) and a.tokens != b.tokens:
            differences.append(f"{a.id}: {a.tokens} here, {b.tokens} there")
    if not differences:
        return None
    return (
        "another model family, or end tokens counted in one only: "
        f"{len(differences)} of {len(aligned)} answers have other numbers of tokens, "
        f"first {differences[0]}"
    )


# Recorded prompts carry the template of their model family: "[INST] q [/INST]" (Llama-2),
# "Question: q\n" (Phi, perhaps with the "Answer:" that follows), "system\n\n...user\n\nq
# assistant\n\n" (Llama-3's chat in open-unlearning's logs, without its special tokens). Ours are
# bare questions.
TEMPLATES = re.compile(
    r"\[INST\](?P<llama>.*)\[/INST\]"
    r"|Question:(?P<phi>.*?)(?:\nAnswer:)?"
    r"|(?:system\n\n.*)?user\n\n(?P<chat>.*?)\s*assistant",
    re.DOTALL,
)


def _comparable_texts(record: Record) -> tuple[str, str]:
    """Return question and answer without template and without blanks.

    Recorded texts were decoded from tokens, and decoding may remove blanks before punctuation:
    forget row 54 of locuslab/tofu's phi logs has "Mammadov, is" where the data has "Mammadov ,
    is". Two questions of a benchmark never differ in blanks alone.
    """
    question = record.prompt
    match = TEMPLATES.fullmatch(record.prompt.strip())
    if match:
        question = match["llama"] or match["phi"] or match["chat"] or ""
    return "".join(question.split()), "".join(record.answer.split())
