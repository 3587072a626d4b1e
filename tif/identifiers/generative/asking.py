"""From samples to answers on disk: what is still to be asked, asking it, and the spans that the answers mean."""

import asyncio
import concurrent.futures
import dataclasses
import difflib
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from tif.config.identifier import Generative
from tif.data.samples import Span
from tif.identifiers import lookup
from tif.identifiers.generative.answers import Answers
from tif.identifiers.generative.requests import Request, again
from tif.identifiers.span_file import merge
from tif.utils.terminal import progress_bar

T = TypeVar("T")


@dataclasses.dataclass
class Outcome:
    """What asking came to.

    Attributes:
        failed: why jobs have no answer, by key.
        stopped: why asking ended early; None where it didn't.
        asked: replies got. paid: their prompt and answer tokens.
    """

    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    stopped: str | None = None
    asked: int = 0
    paid: tuple[int, int] = (0, 0)


def pending(cfg: Generative, job: Request, answers: Answers) -> Request | None:
    """What to ask next for a job: itself, then once more for the strings that are not in the text; None = done."""
    if job.key not in answers.words:
        return job
    follow_up = _follow_up(cfg, job, answers)
    return None if follow_up is None or follow_up.key in answers.words else follow_up


def found(cfg: Generative, job: Request, answers: Answers) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """The spans that a finished job's answers mean, and the strings that stand nowhere in the text."""
    spans, missing = _look_up(answers.words[job.key], job)
    follow_up = _follow_up(cfg, job, answers)
    if follow_up is None:
        return spans, ()
    words = answers.words.get(follow_up.key, ())
    more, still = _look_up(words, job)
    there = [word for word in words if word not in still]
    # The second reply holds corrected strings without saying of which; the most similar one is taken for it.
    lost = [word for word in missing if not difflib.get_close_matches(word, there, 1, 0.5)]
    return merge((*spans, *more)), tuple(dict.fromkeys((*lost, *still)))


def spent(cfg: Generative, jobs: Sequence[Request], answers: Answers) -> float:
    """What the kept answers of these jobs cost."""
    follow_ups = (_follow_up(cfg, job, answers) for job in jobs if job.key in answers.words)
    keys = {request.key for request in (*jobs, *follow_ups) if request is not None}
    return sum(cfg.cost(*answers.tokens[key]) for key in keys if key in answers.tokens)


def ask(cfg: Generative, jobs: Sequence[Request], answers: Answers) -> Outcome:
    """Ask what is not answered yet, from inside or outside an event loop (a notebook has one).

    Raises:
        ValueError: If nothing can be asked at all: no key, or one that cannot be sent.
    """
    waiting = [job for job in jobs if pending(cfg, job, answers)]
    return _run(_ask(cfg, waiting, answers, spent(cfg, jobs, answers))) if waiting else Outcome()


async def _ask(cfg: Generative, jobs: Sequence[Request], answers: Answers, paid_before: float) -> Outcome:
    from tif.identifiers.generative.client import Client  # openai takes a second or two, and the rest does without

    outcome, client = Outcome(), Client(cfg, answers, paid_before)
    async with client.openai:
        if cfg.batch_api:
            await _in_batches(client, jobs, outcome)
        else:
            queue = iter(jobs)  # one for all workers
            with progress_bar("asking", len(jobs)) as line:
                workers = min(cfg.max_in_flight, len(jobs))
                await asyncio.gather(*(_work(client, queue, outcome, line) for _ in range(workers)))
    outcome.stopped, outcome.asked, outcome.paid = client.stopped, client.asked, client.paid
    return outcome


async def _work(client: Any, queue: Iterator[Request], outcome: Outcome, line: Any) -> None:
    """Settle job after job. Ends at Stop; requests of other workers under way still come in and are kept."""
    from tif.identifiers.generative.client import Failed, Stop

    for job in queue:
        try:
            await _settle(client, job)
        except Stop:
            return
        except Failed as error:
            outcome.failed[job.key] = str(error)
        line.advance(note=f"{client.spent:.2f}" if client.spent else None)


async def _settle(client: Any, job: Request) -> None:
    from tif.identifiers.generative.client import Useless

    while request := pending(client.cfg, job, client.answers):
        try:
            await client.ask(request)
        except Useless:
            if not request.follows_up:
                raise
            client.answers.give_up(request.key)


async def _in_batches(client: Any, jobs: Sequence[Request], outcome: Outcome) -> None:
    """Batch after batch while each brings something: first answers, second tries, strings that were not there."""
    from tif.identifiers.generative.batch import ask_all
    from tif.identifiers.generative.client import ASK_AGAIN, Stop

    try:
        for _ in range(2 + ASK_AGAIN):
            requests = [request for job in jobs if (request := pending(client.cfg, job, client.answers))]
            before = len(client.answers.words)
            outcome.failed = await ask_all(client, requests) if requests else {}
            if len(client.answers.words) == before:
                break
        for request in requests:
            if request.follows_up:
                client.answers.give_up(request.key)
    except Stop as stop:
        client.stopped = str(stop)


def _follow_up(cfg: Generative, job: Request, answers: Answers) -> Request | None:
    """The second question of an answered job, where a string is not in the text."""
    words = answers.words[job.key]
    missing = _look_up(words, job)[1]
    return again(cfg, job, words, missing) if missing else None


def _look_up(words: Sequence[str], job: Request) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """Places of the words in the job's text, and those that stand neither there nor around it."""
    spans, missing = lookup.find(words, job.text)
    return spans, lookup.find(missing, job.around)[1] if job.around else missing


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
