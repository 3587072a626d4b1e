"""Ask where forget quality is lost: python benchmarks/marked_entities.py RUN EPOCH GOLD.jsonl MARKS.jsonl

GOLD.jsonl names the entities of answers (benchmarks/tofu_entities.py), MARKS.jsonl the words that were unlearned (tif
identify). The questions of the run's forget set are put into three groups: those whose entity was marked whole, in
part, or not at all. For each group: the p-value of the test that compares the truth ratios of the policy and the retain
model, and the medians of both (the probability of wrong answers over that of the right one).
"""

import statistics
import sys
from pathlib import Path

from scipy.stats import ks_2samp

from tif.identifiers.span_file import read_samples
from tif.metrics.tofu import forget_ratios
from tif.records.files import read_evaluation


def marked_share(gold, marks) -> float:
    """Return the share of the gold words' characters that are marked; blanks do not count."""
    wanted = {
        i for span in gold.unwanted for i in range(span.start, span.end) if not gold.answer[i].isspace()
    }
    marked = {i for span in marks.unwanted for i in range(span.start, span.end)}
    return len(wanted & marked) / len(wanted)


def main(run: str, epoch: str, gold: str, marks: str) -> None:
    """Print a line for each group."""
    entities = {sample.id: sample for sample in read_samples(Path(gold))}
    unlearned = {sample.id: sample for sample in read_samples(Path(marks))}
    policy, retain = (read_evaluation(Path(run) / "eval" / name) for name in (epoch, "retain_model"))
    groups = {"whole": [], "part": [], "none": []}
    pairs = zip(policy.sets["forget"].records, forget_ratios(policy), forget_ratios(retain), strict=True)
    for record, ratio, retain_ratio in pairs:
        if record.id in entities:
            share = marked_share(entities[record.id], unlearned[record.id])
            name = "whole" if share == 1 else "part" if share else "none"
            groups[name].append((float(ratio), float(retain_ratio)))
    print("entity marked  questions  p-value  median, policy  median, retain model")
    for name, rows in groups.items():
        if not rows:
            continue
        ours, theirs = zip(*rows, strict=True)
        p = ks_2samp(ours, theirs).pvalue
        medians = [statistics.median(values) for values in (ours, theirs)]
        print(f"{name:13}  {len(rows):9}  {p:7.3f}  {medians[0]:14.3f}  {medians[1]:20.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
