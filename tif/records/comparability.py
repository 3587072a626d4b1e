"""Decide whether two evaluations may be compared: questions, protocol, model family, tokens.

Called by the metrics that compare with the retain model, and by `training.plan`.
"""

import re
from collections.abc import Iterator, Sequence
from textwrap import shorten

from tif.records.types import Evaluation, Record, RecordSet

# Rules that change no loss, so no truth ratio: those of generations, and how many questions are
# asked (the questions themselves are compared).
RULES_WITHOUT_LOSS = {
    "name",
    "questions",
    "max_samples",
    "max_new_tokens",
    "prompt_counts",
    "decoding",
}


def find_mismatch(
    evaluation: Evaluation, retain: Evaluation, sets: Sequence[str] = ("forget",)
) -> str | None:
    """Return why two evaluations should not be compared, or None.

    What one of them does not say (family, protocol, token counts) is no reason.

    Args:
        evaluation: of the model.
        retain: of the retain model.
        sets: whose questions are compared.
    """
    missing = find_missing_records(evaluation, retain, sets)
    if missing:
        return missing
    for rule, ours, theirs in _rules_of_both(evaluation, retain):
        if ours is not None and theirs is not None and ours != theirs:
            return f"the {rule} is {ours!r}, the retain model's is {theirs!r}"
    for name in sets:
        our_records, their_records = evaluation.sets[name], retain.sets[name]
        difference = _find_other_questions(our_records, their_records)
        difference = difference or _find_other_tokens(our_records, their_records)
        if difference:
            return difference
    return None


def find_missing_records(
    evaluation: Evaluation, retain: Evaluation, sets: Sequence[str] = ("forget",)
) -> str | None:
    """Return which of two evaluations has no records of one of the sets, or None."""
    evaluations = {
        "the model's evaluation": evaluation,
        "the retain model's evaluation": retain,
    }
    for title, records in evaluations.items():
        for name in sets:
            if name not in records.sets:
                return f"{title} has no {name} records, only {', '.join(records.sets) or 'none'}"
    return None


def align_records(ours: RecordSet, theirs: RecordSet) -> RecordSet | None:
    """Return their records in the order of ours, question by question; None if questions differ."""
    aligned, only_ours, only_theirs = _match(ours.records, theirs.records)
    if only_ours or only_theirs:
        return None
    return RecordSet(theirs.name, tuple(aligned), theirs.data)


def _rules_of_both(
    evaluation: Evaluation, retain: Evaluation
) -> Iterator[tuple[str, object, object]]:
    """Yield each rule that must agree, with its value here and there."""
    ours, theirs = evaluation.protocol, retain.protocol
    yield "model family", evaluation.family, retain.family
    yield "protocol", ours.get("name"), theirs.get("name")
    for rule in sorted((ours.keys() & theirs.keys()) - RULES_WITHOUT_LOSS):
        yield f"protocol's {rule}", ours[rule], theirs[rule]


def _match(
    ours: Sequence[Record], theirs: Sequence[Record]
) -> tuple[list[Record], list[Record], list[Record]]:
    """Pair the records of the same question and answer; a question may be asked twice.

    Returns:
        Their records beside ours, our records without a partner, their records without a partner.
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
    only_theirs = [record for records in waiting.values() for record in records]
    return aligned, only_ours, only_theirs


def _find_other_tokens(ours: RecordSet, theirs: RecordSet) -> str | None:
    """Return why losses per token do not compare: the same answers have other token counts."""
    aligned = align_records(ours, theirs)
    differences = []
    for a, b in zip(ours.records, aligned.records if aligned else (), strict=bool(aligned)):
        if a.tokens is not None and b.tokens is not None and a.tokens != b.tokens:
            differences.append((a, b))
    if not differences:
        return None
    a, b = differences[0]
    return (
        "another model family, or end tokens counted in one only: "
        f"{len(differences)} of {len(ours.records)} answers have other numbers of tokens, "
        f"first {a.id}: {a.tokens} here, {b.tokens} there"
    )


def _find_other_questions(ours: RecordSet, theirs: RecordSet) -> str | None:
    """Return how the questions of two sets differ, or None."""
    _, only_ours, only_theirs = _match(ours.records, theirs.records)
    if not only_ours and not only_theirs:
        return None
    line = f"{len(ours.records)} questions against the retain model's {len(theirs.records)}"
    for title, records in (("only here", only_ours), ("only there", only_theirs)):
        if records:
            first = records[0]
            question, answer = shorten(first.prompt, 80), shorten(first.answer, 40)
            line += f"; {title} {len(records)}, first {first.id}: {question!r} -> {answer!r}"
    return line


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
