"""The replies of an LLM on disk, and what they mean: which request is next, which spans they name.

Called by `identify`, `api_client` and `batch_api` of this folder. One JSON line for each reply is
appended the moment it comes, so that none is paid for twice:

    {"key": Request.key, "content": the reply as it came, "prompt_tokens": n, "answer_tokens": n,
     "problem": null}

Lines are only ever added. A line that a kill cut short, or that holds anything else, is skipped.
Replies that cannot be used stay too, for their cost: those with a problem (refused, cut at
max_tokens) and those without words.
"""

import dataclasses
import difflib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tif.config.identifier import Generative
from tif.data.samples import Span
from tif.identifiers.generative import prompts_and_replies as texts
from tif.identifiers.generative.prompts_and_replies import BadReply, Reply, Request, TokenCount
from tif.identifiers.lookup import find_strings
from tif.identifiers.span_operations import merge_spans

MAX_LINE = 2**24  # bytes of the file read at once; no reply has more
MAX_MISSING = 50  # strings asked for once more; the rest is missing


class ReplyCache:
    """All replies in a folder, and the place for new ones. Everything is by request key."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "answers.jsonl"
        self.words: dict[str, tuple[str, ...]] = {}  # of usable replies
        self.tokens: dict[str, TokenCount] = {}  # paid for, in all runs
        self.counts: Counter[str] = Counter()  # replies that came, the unusable ones included
        # Unbuffered: what a killed process wrote is there. O_APPEND: two runs may share the folder.
        self._file = self.path.open("ab", buffering=0)
        line = b"\n"
        with self.path.open("rb") as file:
            while piece := file.readline(MAX_LINE):
                line = piece
                self._load_line(line)
        if not line.endswith(b"\n"):
            self._file.write(b"\n")

    def __enter__(self) -> "ReplyCache":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: str, reply: Reply) -> None:
        """Write a reply; raise BadReply if it cannot be used. It is written for its cost."""
        row = {"key": key, **dataclasses.asdict(reply)}
        self._file.write(json.dumps(row).encode() + b"\n")
        self._use(key, reply)

    def give_up(self, key: str) -> None:
        """Take an empty reply for this run; the next run asks again."""
        self.words[key] = ()

    def _load_line(self, line: bytes) -> None:
        try:
            row: Any = json.loads(line)
            self._use(str(row.pop("key")), Reply(**row))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, BadReply):
            return

    def _use(self, key: str, reply: Reply) -> None:
        self.tokens[key] = self.tokens.get(key, TokenCount()) + reply.tokens
        self.counts[key] += 1
        if reply.problem:
            raise BadReply(reply.problem)
        self.words[key] = texts.parse_words(reply.content)


def next_request(settings: Generative, job: Request, cache: ReplyCache) -> Request | None:
    """Return the job itself, then once more for strings that are not there; None where done."""
    if job.key not in cache.words:
        return job
    follow_up = _make_follow_up(settings, job, cache)
    return None if follow_up is None or follow_up.key in cache.words else follow_up


def find_spans(
    settings: Generative, job: Request, cache: ReplyCache
) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """Return the spans that a finished job's replies name, and the strings that stand nowhere."""
    spans, missing = _look_up(cache.words[job.key], job)
    follow_up = _make_follow_up(settings, job, cache)
    if follow_up is None:
        return spans, ()
    words = cache.words.get(follow_up.key, ())
    more_spans, still_missing = _look_up(words, job)
    corrections = [word for word in words if word not in still_missing]
    # The second reply holds corrected strings without saying of which; the most similar one is
    # taken for it.
    repeated, rest = missing[:MAX_MISSING], missing[MAX_MISSING:]
    lost = [word for word in repeated if not _resembles_any(word, corrections)]
    return merge_spans((*spans, *more_spans)), tuple(dict.fromkeys((*lost, *rest, *still_missing)))


def _resembles_any(word: str, corrections: Sequence[str]) -> bool:
    return bool(difflib.get_close_matches(word, corrections, 1, 0.5))


def sum_cost(settings: Generative, jobs: Sequence[Request], cache: ReplyCache) -> float:
    """Return what the replies to these jobs cost, in all runs."""
    keys = {job.key for job in jobs}
    for job in jobs:
        follow_up = _make_follow_up(settings, job, cache) if job.key in cache.words else None
        if follow_up is not None:
            keys.add(follow_up.key)
    return sum(cache.tokens[key].cost(settings) for key in keys if key in cache.tokens)


def _make_follow_up(settings: Generative, job: Request, cache: ReplyCache) -> Request | None:
    """Return the second question of an answered job; None where no string is missing."""
    words = cache.words[job.key]
    _, missing = _look_up(words, job)
    return texts.make_follow_up(settings, job, words, missing[:MAX_MISSING]) if missing else None


def _look_up(words: Sequence[str], job: Request) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """Return the words' places in the job's text, and those that are neither there nor around."""
    spans, missing = find_strings(words, job.text)
    if job.around:
        _, missing = find_strings(missing, job.around)
    return spans, missing
