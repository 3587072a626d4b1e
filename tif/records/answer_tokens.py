"""How the answers of a run's evaluations are cut into tokens, and which of them are unwanted.

Written once a run beside its records, which hold numbers for each of these tokens. Read by
`reports`.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tif.records.json_values import load_json, parse
from tif.utils.files import write_text

FILE_NAME = "tokens.json"
MARKS = {"0": False, "1": True}  # a character for each token


@dataclasses.dataclass(frozen=True)
class AnswerTokens:
    """The scored tokens of one answer, as many as its record's `stats` have.

    Attributes:
        ends: where each ends in the answer, in characters; a token begins where the one before it
            ends. One that adds no whole character ends where it begins.
        uw: whether each is (part of) an unwanted word; None where nobody marked the answer.
        unwanted: [start, end) of the unwanted words in the answer; None as `uw`.
        gold: as `uw`, by the marks that the data came with; None where `uw` is these, or the data
            has none.
    """

    ends: tuple[int, ...]
    uw: tuple[bool, ...] | None = None
    unwanted: tuple[tuple[int, int], ...] | None = None
    gold: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        for name, marks in (("uw", self.uw), ("gold", self.gold)):
            if marks is not None and len(marks) != len(self.ends):
                raise ValueError(f"{name} has {len(marks)} tokens, ends has {len(self.ends)}")

    @property
    def measured(self) -> tuple[bool, ...] | None:
        """Return which tokens count as unwanted where words are measured: gold where it is."""
        return self.uw if self.gold is None else self.gold


AnswersBySet = Mapping[str, Mapping[str, AnswerTokens]]  # set -> id of the record -> its tokens


def write_answer_tokens(folder: Path, answers: AnswersBySet) -> None:
    """Write <folder>/tokens.json, a line for each answer."""
    blocks = []
    for set_name, tokens_by_id in answers.items():
        lines = []
        for record_id, tokens in tokens_by_id.items():
            fields = dataclasses.asdict(tokens)
            for name, marks in (("uw", tokens.uw), ("gold", tokens.gold)):
                if marks is not None:
                    fields[name] = "".join("1" if mark else "0" for mark in marks)
            lines.append(f"  {json.dumps(record_id)}: {json.dumps(fields)}")
        content = ",\n".join(lines)
        blocks.append(f" {json.dumps(set_name)}: {{\n{content}\n }}")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE_NAME, "{\n" + ",\n".join(blocks) + "\n}\n")


def read_answer_tokens(folder: Path) -> dict[str, dict[str, AnswerTokens]]:
    """Return the tokens by set and id; none where the folder has no such file.

    Raises:
        ValueError: If the file is damaged; one line that names file and key.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return {}
    answers: dict[str, dict[str, AnswerTokens]] = {}
    content = parse(dict[str, dict[str, dict[str, Any]]], load_json(path), path)
    for set_name, fields_by_id in content.items():
        answers[set_name] = {}
        for record_id, fields in fields_by_id.items():
            for name in ("uw", "gold"):
                if isinstance(fields.get(name), str):
                    fields[name] = [MARKS.get(mark) for mark in fields[name]]
            tokens = parse(AnswerTokens, fields, path, set_name, record_id)
            answers[set_name][record_id] = tokens
    return answers
