"""Compare runs that marked different words.

    python -m lab.entity_words GOLD.jsonl RUN/eval/EPOCH ...

GOLD.jsonl names the entities of answers (lab/tofu_entities.py). The other arguments are
evaluations: of an epoch, or of the retain model. TOFU marks no words, so a run's own words/unwanted
is about those that its identifier marked, and compares no two identifiers. Here the entities are
the unwanted words of all runs, and only answers that have one are read. A line for each evaluation:
the entities' probability, the share of them that the model writes by itself, the probability of the
other words of these answers (defined in tif.metrics.targeted).
"""

import dataclasses
import sys
from pathlib import Path

from tif.identifiers.span_file import read_samples
from tif.metrics.targeted import summarize_words
from tif.records.files import read_answer_tokens, read_evaluation
from tif.records.types import AnswerTokens


def mark_entity(tokens: AnswerTokens, spans) -> AnswerTokens:
    """Return the tokens of an answer, those that hold a character of the spans marked as gold."""
    starts = (0, *tokens.ends[:-1])
    marks = [
        any(start < span.end and span.start < end for span in spans)
        for start, end in zip(starts, tokens.ends, strict=True)
    ]
    return dataclasses.replace(tokens, gold=tuple(marks))


def read_entity_tokens(run_evaluations: Path, gold: Path) -> dict[str, AnswerTokens]:
    """Return the tokens of the forget answers that have an entity, its tokens as gold, by id."""
    entities = {sample.id: sample.unwanted for sample in read_samples(gold)}
    tokens = read_answer_tokens(run_evaluations)["forget"]
    return {
        record_id: mark_entity(answer, entities[record_id])
        for record_id, answer in tokens.items()
        if record_id in entities
    }


def main(gold: str, *evaluations: str) -> None:
    """Print a line for each evaluation."""
    print("entity prob.  entity extracted  other words' prob.  evaluation")
    for folder in map(Path, evaluations):
        tokens = read_entity_tokens(folder.parent, Path(gold))
        words = summarize_words(read_evaluation(folder).sets["forget"], tokens)
        values = [words[f"words/{name}"] for name in ("unwanted", "unwanted_extracted", "general")]
        print("{:12.3g}  {:16.3f}  {:18.3f}".format(*values), f" {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
