"""Make the book of docs/results/breadth.md: python -m lab.make_book FOLDER [authors] [retained]

The folder is for data.benchmark=text: forget.txt is a book about invented authors, retain.txt a
shorter one about others, both by the generator of data.benchmark=fictitious. A book has five parts.
Each part goes through all authors in the same order, a chapter (a line) each, and says all of an
author's nineteen facts in another wording; the last part implies them. Two chapters of one author
are thus far apart: what the second has, a model that reads a few hundred tokens must know by heart.
The facts are marked [[so]]. Without numbers, forget.txt has about 175,000 words.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from tif.config.data import Fictitious
from tif.data.benchmarks.fictitious import MOST_WORDINGS, generate_fictitious
from tif.data.samples import Sample

QUESTIONS = 20  # asked about each author; the first asks for the name, which heads the chapters


def main(folder: str, authors: str = "200", retained: str = "40") -> None:
    """Write both books."""
    total = int(authors) + int(retained)
    benchmark = generate_fictitious(
        Fictitious(
            authors=total,
            questions_per_author=QUESTIONS,
            forget_share=int(authors) / total,
            wordings=MOST_WORDINGS,
        )
    )
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, samples in (("forget", benchmark.forget), ("retain", benchmark.retain)):
        text = write_book(samples)
        Path(folder, f"{name}.txt").write_text(text, encoding="utf-8")
        print(f"{name}.txt: {len(text.split()):,} words, {text.count('[[')} facts marked")


def write_book(samples: Sequence[Sample]) -> str:
    """Return the book's text, author by author, one way to ask after the other."""
    author_ways = [
        samples[start : start + QUESTIONS] for start in range(0, len(samples), QUESTIONS)
    ]
    chapters = []
    for way in range(MOST_WORDINGS):
        for questions in author_ways[way::MOST_WORDINGS]:
            (name,) = questions[0].unwanted or ()
            heading = questions[0].answer[name.start : name.end]
            chapters.append(" ".join([f"{heading}.", *(mark(sample) for sample in questions[1:])]))
    return "\n".join(chapters) + "\n"


def mark(sample: Sample) -> str:
    """Return the answer with double brackets around its unwanted words."""
    text, end = "", 0
    for span in sample.unwanted or ():
        text += f"{sample.answer[end : span.start]}[[{sample.answer[span.start : span.end]}]]"
        end = span.end
    return text + sample.answer[end:]


if __name__ == "__main__":
    main(*sys.argv[1:])
