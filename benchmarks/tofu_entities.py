"""Write gold spans of TOFU: python benchmarks/tofu_entities.py TOFU ENTITIES.json OUT.jsonl

TOFU is the folder of TOFU's JSON files. ENTITIES.json names one entity that answers the question in
367 of forget10's 400 answers (github.com/gnueaj/unlearning-depth-score, Apache-2.0). An answer may
hold more that is to be forgotten: recall against these spans is fair, precision is not.
"""

import dataclasses
import json
import sys
from pathlib import Path

from tif.data.samples import Span
from tif.data.tofu import read_tofu
from tif.identifiers.span_file import write_spans


def main(data: str, entities: str, out: str) -> None:
    """Write the span file of the answers that have an entity."""
    forget = read_tofu(data, "forget10").forget
    samples = []
    for row in json.loads(Path(entities).read_text(encoding="utf-8")):
        sample = forget[row["idx"]]
        if (row["question"], row["answer"]) != (sample.prompt, sample.answer):
            raise ValueError(f"row {row['idx']} of {entities} is another question than in {data}")
        start = sample.answer.index(row["entity"], len(row["prefix"]))
        span = Span(start, start + len(row["entity"]))
        samples.append(dataclasses.replace(sample, unwanted=(span,)))
    write_spans(out, samples, {"kind": "gold", "source": Path(entities).name})
    print(f"{out}: {len(samples)} samples")


if __name__ == "__main__":
    main(*sys.argv[1:])
