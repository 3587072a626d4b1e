"""Write gold spans of TOFU: python -m lab.tofu_entities TOFU ENTITIES.json OUT.jsonl [MARKS.jsonl]

TOFU is the folder of TOFU's JSON files. ENTITIES.json names one entity that answers the question in
367 of forget10's 400 answers (github.com/gnueaj/unlearning-depth-score, Apache-2.0). An answer may
hold more that is to be forgotten: recall against these spans is fair, precision is not.

With MARKS.jsonl, a span file of forget10, the spans of both are written, for all of its answers.
"""

import dataclasses
import json
import sys
from pathlib import Path

from tif.data.benchmarks.tofu import read_tofu
from tif.data.samples import Span
from tif.identifiers.span_file import attach_spans, write_spans


def main(data: str, entities: str, out: str, marks: str = "") -> None:
    """Write the span file of the answers that have an entity, and those that `marks` has."""
    forget = read_tofu(data, "forget10").forget
    samples = {}
    if marks:
        samples = {sample.id: sample for sample in attach_spans(Path(marks), forget)}
    for row in json.loads(Path(entities).read_text(encoding="utf-8")):
        sample = forget[row["idx"]]
        if (row["question"], row["answer"]) != (sample.prompt, sample.answer):
            raise ValueError(f"row {row['idx']} of {entities} is another question than in {data}")
        start = sample.answer.index(row["entity"], len(row["prefix"]))
        spans = (Span(start, start + len(row["entity"])),)
        if marks:
            spans += samples[sample.id].unwanted
        samples[sample.id] = dataclasses.replace(sample, unwanted=spans)
    source = [Path(file).name for file in (entities, marks) if file]
    write_spans(Path(out), samples.values(), {"kind": "gold", "source": ", ".join(source)})
    print(f"{out}: {len(samples)} samples")


if __name__ == "__main__":
    main(*sys.argv[1:])
