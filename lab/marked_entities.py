"""Show where forget quality is lost: python -m lab.marked_entities RUN EPOCH GOLD.jsonl MARKS.jsonl

GOLD.jsonl names the entities of answers (lab/tofu_entities.py), MARKS.jsonl the words that were
unlearned (tif identify). The questions of the run's forget set are put into three groups: those
whose entity was marked whole, in part, or not at all. For each group: the p-value of the test that
compares the truth ratios of the policy and the retain model, the medians of both (the probability
of wrong answers over that of the right one), and the share of the entities that each writes by
itself.
"""

import statistics
import sys
from pathlib import Path

from scipy.stats import ks_2samp

from lab.entity_words import read_entity_tokens
from tif.identifiers.span_file import read_samples
from tif.metrics.targeted import summarize_words
from tif.metrics.tofu import forget_ratios
from tif.records.files import read_evaluation


def marked_share(gold, marks) -> float:
    """Return the share of the gold words' characters that are marked; blanks do not count."""
    wanted = {
        i
        for span in gold.unwanted
        for i in range(span.start, span.end)
        if not gold.answer[i].isspace()
    }
    marked = {i for span in marks.unwanted for i in range(span.start, span.end)}
    return len(wanted & marked) / len(wanted)


def main(run: str, epoch: str, gold: str, marks: str) -> None:
    """Print a line for each group."""
    entities = {sample.id: sample for sample in read_samples(Path(gold))}
    unlearned = {sample.id: sample for sample in read_samples(Path(marks))}
    policy, retain = (
        read_evaluation(Path(run) / "eval" / name) for name in (epoch, "retain_model")
    )
    tokens = read_entity_tokens(Path(run) / "eval", Path(gold))
    groups = {"whole": [], "part": [], "none": []}
    pairs = zip(
        policy.sets["forget"].records, forget_ratios(policy), forget_ratios(retain), strict=True
    )
    for record, ratio, retain_ratio in pairs:
        if record.id in entities:
            share = marked_share(entities[record.id], unlearned[record.id])
            name = "whole" if share == 1 else "part" if share else "none"
            groups[name].append((record.id, float(ratio), float(retain_ratio)))
    print(
        "entity marked  questions  p-value  median: policy, retain model  "
        "extracted: policy, retain model"
    )
    for name, rows in groups.items():
        if not rows:
            continue
        ids, ours, theirs = zip(*rows, strict=True)
        p = ks_2samp(ours, theirs).pvalue
        values = [statistics.median(ratios) for ratios in (ours, theirs)]
        for model in (policy, retain):
            words = summarize_words(
                model.sets["forget"], {record_id: tokens[record_id] for record_id in ids}
            )
            values.append(words.get("words/unwanted_extracted", float("nan")))
        print(
            f"{name:13}  {len(rows):9}  {p:7.3f}",
            "  {:14.3f}, {:12.3f}  {:17.3f}, {:12.3f}".format(*values),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
