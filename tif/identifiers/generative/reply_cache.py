"""The replies of an LLM on disk: which request is next, and which spans the replies name.

One JSON line for each reply is appended the moment it comes, so that none is paid for twice:

    {"key": Request.key, "content": the reply as it came, "prompt_tokens": n, "answer_tokens": n,
     "problem": null}

Lines are only ever added, by one process or several. A line that a kill cut short, or that holds
anything else, is skipped. Replies that cannot be used stay too, for their cost: those with a
problem (refused, cut at max_tokens) and those without words.

The same file is the account of what was sent. Before a request is sent, its upper limit is written
with the problem SENT; the next line of its key replaces that limit by what it cost. So a request
that fails, or whose process is killed, counts at its upper limit.
"""

import contextlib
import dataclasses
import difflib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tif.data.samples import Span
from tif.identifiers.generative import prompts_and_replies as texts
from tif.identifiers.generative.keys import Generative
from tif.identifiers.generative.prompts_and_replies import BadReply, Reply, Request, TokenCount
from tif.identifiers.span_operations import merge_spans
from tif.identifiers.string_search import find_strings

MAX_LINE = 2**24  # bytes of the file read at once; no reply has more
MAX_MISSING = 50  # strings asked for once more; the rest is missing
SENT = "sent, no reply yet"
REFUSED = "not answered"


class ReplyCache:
    """All replies in a folder, and the place for new ones. Everything is by request key.

    Attributes:
        words: of usable replies.
        tokens: of all requests that were sent, in all runs.
        counts: replies that came, the unusable ones included.
        unanswered: upper limits of the requests that were sent and have no reply.
        paid: the tokens of the keys that are watched.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "answers.jsonl"
        self.words: dict[str, tuple[str, ...]] = {}
        self.tokens: defaultdict[str, TokenCount] = defaultdict(TokenCount)
        self.counts: Counter[str] = Counter()
        self.unanswered: defaultdict[str, list[TokenCount]] = defaultdict(list)
        self.paid, self._watched = TokenCount(), set[str]()
        # Unbuffered: what a killed process wrote is there. O_APPEND: two runs may share the folder.
        self._writer = self.path.open("ab", buffering=0)
        self._reader = self.path.open("rb")
        self.refresh()
        self._end_last_line()

    def __enter__(self) -> "ReplyCache":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        self._reader.close()

    def refresh(self) -> None:
        """Read the lines that this process and others have added."""
        while line := self._reader.readline(MAX_LINE):
            if not line.endswith(b"\n") and len(line) < MAX_LINE:  # not complete yet
                self._reader.seek(-len(line), os.SEEK_CUR)
                return
            self._load_line(line)

    def watch(self, key: str) -> None:
        """Count the tokens of a key in `paid`."""
        if key not in self._watched:
            self._watched.add(key)
            self.paid += self.tokens[key]

    def open_request(self, key: str, bound: TokenCount) -> None:
        """Write that a request is about to be sent, and the tokens that it cannot exceed."""
        self._write(key, Reply("", bound.prompt, bound.answer, SENT))

    def close_request(self, key: str, has_arrived: bool) -> None:
        """Write that a request was not answered: it costs its prompt, or nothing."""
        bounds = self.unanswered[key]
        if bounds:
            self._write(key, Reply("", bounds[-1].prompt if has_arrived else 0, 0, REFUSED))

    def count_unanswered(self) -> int:
        """Return the watched requests that count at their upper limit for want of a reply."""
        return sum(len(self.unanswered[key]) for key in self._watched)

    def add(self, key: str, reply: Reply) -> None:
        """Write a reply; raise BadReply if it cannot be used. It is written for its cost."""
        self._write(key, reply)
        _read_words(reply)

    def give_up(self, key: str) -> None:
        """Take an empty reply for this run; the next run asks again."""
        self.words[key] = ()

    def _write(self, key: str, reply: Reply) -> None:
        row = {"key": key, **dataclasses.asdict(reply)}
        self.refresh()
        self._end_last_line()
        self._writer.write(json.dumps(row).encode() + b"\n")
        self.refresh()

    def _end_last_line(self) -> None:
        if self._reader.peek(1):  # a kill cut it
            self._writer.write(b"\n")
            self.refresh()

    def _load_line(self, line: bytes) -> None:
        try:
            row: Any = json.loads(line)
            key, reply = str(row.pop("key")), Reply(**row)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return
        self._count(key, reply)
        if reply.problem in (SENT, REFUSED):
            return
        self.counts[key] += 1
        with contextlib.suppress(BadReply):
            self.words[key] = _read_words(reply)

    def _count(self, key: str, reply: Reply) -> None:
        """Add the tokens of a line; a reply takes the place of the limit of its request."""
        tokens, bounds = reply.tokens, self.unanswered[key]
        if reply.problem == SENT:
            bounds.append(tokens)
        elif bounds:
            tokens -= bounds.pop()
        self.tokens[key] += tokens
        if key in self._watched:
            self.paid += tokens


def _read_words(reply: Reply) -> tuple[str, ...]:
    if reply.problem:
        raise BadReply(reply.problem)
    return texts.parse_words(reply.content)


def next_request(settings: Generative, job: Request, cache: ReplyCache) -> Request | None:
    """Return a job's next request: itself, then a follow-up for strings not in its text."""
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
    words = cache.words.get(follow_up.key, ()) if follow_up else ()
    more_spans, still_missing = _look_up(words, job)
    corrections = [word for word in words if word not in still_missing]
    # The second reply holds corrected strings without saying of which; the most similar one is
    # taken for it.
    lost = []
    for word in missing[:MAX_MISSING]:
        if not difflib.get_close_matches(word, corrections, 1, 0.5):
            lost.append(word)
    all_missing = (*lost, *missing[MAX_MISSING:], *still_missing)
    return merge_spans((*spans, *more_spans)), tuple(dict.fromkeys(all_missing))


def watch_jobs(settings: Generative, jobs: Sequence[Request], cache: ReplyCache) -> TokenCount:
    """Return the tokens that these jobs and their second questions took, in all runs."""
    for job in jobs:
        cache.watch(job.key)
        follow_up = _make_follow_up(settings, job, cache)
        if follow_up is not None:
            cache.watch(follow_up.key)
    return cache.paid


def _make_follow_up(settings: Generative, job: Request, cache: ReplyCache) -> Request | None:
    """Return the second question of a job; None before the reply, and where nothing is missing."""
    words = cache.words.get(job.key, ())
    _, missing = _look_up(words, job)
    return texts.make_follow_up(settings, job, words, missing[:MAX_MISSING]) if missing else None


def _look_up(words: Sequence[str], job: Request) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """Return the words' places in the job's text, and those that are neither there nor around."""
    spans, missing = find_strings(words, job.text)
    if job.around:
        _, missing = find_strings(missing, job.around)
    return spans, missing
