"""The answers of an LLM on disk: one JSON line for each, appended the moment it comes, never paid for twice.

    {"key": Request.key, "content": the reply as it came, "prompt_tokens": n, "answer_tokens": n, "problem": null}

Lines are only ever added. A line that a kill cut short is skipped. Replies that cannot be used stay too, for their
cost: those with a problem (refused, cut at max_tokens) and those that `parse` cannot read.
"""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

from tif.identifiers.generative.requests import BadAnswer, Reply, parse


class Answers:
    """All answers in a folder, and the place for new ones.

    Attributes:
        words: the usable answers' words, by request key.
        tokens: prompt and answer tokens paid for, by request key; unusable answers included.
        replies: how many came, by request key, in all runs; unusable ones included.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "answers.jsonl"
        self.words: dict[str, tuple[str, ...]] = {}
        self.tokens: dict[str, tuple[int, int]] = {}
        self.replies: Counter[str] = Counter()
        # Unbuffered: what a killed process wrote is there. O_APPEND: two runs may share the folder.
        self._file = self.path.open("ab", buffering=0)
        with self.path.open("rb") as file:
            line = b"\n"
            for line in file:  # noqa: B007
                self._take(line)
        if not line.endswith(b"\n"):
            self._file.write(b"\n")

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: str, reply: Reply) -> None:
        """Keep a reply, then read it.

        Raises:
            BadAnswer: If it cannot be used. It is kept for its cost.
        """
        row = {"key": key, **dataclasses.asdict(reply)}
        self._file.write(json.dumps(row).encode() + b"\n")
        self._use(key, reply)

    def give_up(self, key: str) -> None:
        """Take an empty answer for this run; the next one asks again."""
        self.words[key] = ()

    def _take(self, line: bytes) -> None:
        try:
            row: Any = json.loads(line)
            self._use(row.pop("key"), Reply(**row))
        except (ValueError, LookupError, TypeError, AttributeError, BadAnswer):
            return

    def _use(self, key: str, reply: Reply) -> None:
        prompt, answer = self.tokens.get(key, (0, 0))
        self.tokens[key] = prompt + reply.prompt_tokens, answer + reply.answer_tokens
        self.replies[key] += 1
        if reply.problem:
            raise BadAnswer(reply.problem)
        self.words[key] = parse(reply.content)
