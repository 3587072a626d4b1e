"""Whether two evaluations may be compared: the same questions, protocol, model family and tokens."""

import re
from collections import Counter
from collections.abc import Sequence
from textwrap import shorten

from tif.records.types import Evaluation, Record, RecordSet

# Rules that change no loss, so no truth ratio: of generations, and of how many questions (which are compared).
NO_LOSS = {"name", "questions", "max_samples", "max_new_tokens", "prompt_counts", "decoding"}


def mismatch(evaluation: Evaluation, retain: Evaluation, sets: Sequence[str] = ("forget",)) -> str | None:
    """Say in what these two should not be compared, or None. What is not known is not held against them.

    Args:
        evaluation: of the model in question.
        retain: of the retain model.
        sets: whose questions are compared.
    """
    if missing := no_records(evaluation, retain, sets):
        return missing
    pairs = {
        "model family": (evaluation.family, retain.family),
        "protocol": (evaluation.protocol.get("name"), retain.protocol.get("name")),
    }
    for rule in sorted((evaluation.protocol.keys() & retain.protocol.keys()) - NO_LOSS):
        pairs[f"protocol's {rule}"] = evaluation.protocol[rule], retain.protocol[rule]
    for what, (ours, theirs) in pairs.items():
        if None not in (ours, theirs) and ours != theirs:
            return f"the {what} is {ours!r}, the retain model's is {theirs!r}"
    pairs_of_sets = [(evaluation.sets[name], retain.sets[name]) for name in sets]
    found = (
        difference for own in pairs_of_sets for difference in (_different_questions(*own), _different_tokens(*own))
    )
    return next(filter(None, found), None)


def no_records(evaluation: Evaluation, retain: Evaluation, sets: Sequence[str] = ("forget",)) -> str | None:
    """Say which of the two has no records of one of the sets, or None."""
    for whose, one in (("the model's evaluation", evaluation), ("the retain model's evaluation", retain)):
        for name in sets:
            if name not in one.sets:
                return f"{whose} has no {name} records, only {', '.join(one.sets) or 'none'}"
    return None


def aligned(ours: RecordSet, theirs: RecordSet) -> RecordSet | None:
    """Their records in the order of ours, each beside the one of the same question; None if the questions differ."""
    left: dict[tuple[str, str], list[Record]] = {}
    for record in reversed(theirs.records):
        left.setdefault(_texts(record), []).append(record)
    found = [left[_texts(record)].pop() for record in ours.records if left.get(_texts(record))]
    same = len(found) == len(ours.records) == len(theirs.records)
    return RecordSet(theirs.name, tuple(found), theirs.data) if same else None


def _different_tokens(ours: RecordSet, theirs: RecordSet) -> str | None:
    """The same answers in other numbers of tokens, as far as known: the losses per token do not compare then."""
    other = aligned(ours, theirs)
    pairs = list(zip(ours.records, other.records, strict=True)) if other else []
    differ = [(a, b) for a, b in pairs if None not in (a.tokens, b.tokens) and a.tokens != b.tokens]
    if not differ:
        return None
    first, second = differ[0]
    return (
        f"another model family, or end tokens counted in one only: {len(differ)} of {len(pairs)} answers have other "
        f"numbers of tokens, first {first.id}: {first.tokens} here, {second.tokens} there"
    )


def _different_questions(ours: RecordSet, theirs: RecordSet) -> str | None:
    only_here, only_there = _without_match(ours.records, theirs.records), _without_match(theirs.records, ours.records)
    if not only_here and not only_there:
        return None
    line = f"{len(ours.records)} questions against the retain model's {len(theirs.records)}"
    for place, records in (("only here", only_here), ("only there", only_there)):
        if records:
            question, answer = shorten(records[0].prompt, 80), shorten(records[0].answer, 40)
            line += f"; {place} {len(records)}, first {records[0].id}: {question!r} -> {answer!r}"
    return line


def _without_match(records: Sequence[Record], others: Sequence[Record]) -> list[Record]:
    left = Counter(map(_texts, others))
    found = []
    for record in records:
        if left[_texts(record)]:
            left[_texts(record)] -= 1
        else:
            found.append(record)
    return found


# Recorded prompts carry the template of their model family: "[INST] q [/INST]" (Llama-2), "Question: q\n" (Phi,
# perhaps with the "Answer:" that follows), "system\n\n...user\n\nqassistant\n\n" (Llama-3's chat in open-unlearning's
# logs, its special tokens left out). Ours are bare questions.
_TEMPLATE = re.compile(
    r"\[INST\](?P<llama>.*)\[/INST\]|Question:(?P<phi>.*?)(?:\nAnswer:)?"
    r"|(?:system\n\n.*)?user\n\n(?P<chat>.*?)\s*assistant",
    re.DOTALL,
)


def _texts(record: Record) -> tuple[str, str]:
    """Question and answer as they are compared: without template and without blanks.

    Recorded texts were decoded from tokens, and decoding may remove blanks before punctuation: forget row 54 of
    locuslab/tofu's phi logs has "Mammadov, is" where the data has "Mammadov , is". Two questions of a benchmark never
    differ in blanks alone.
    """
    match = _TEMPLATE.fullmatch(record.prompt.strip())
    question = next(filter(None, match.groups()), "") if match else record.prompt
    return "".join(question.split()), "".join(record.answer.split())
