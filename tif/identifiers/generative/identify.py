"""The identifier `generative`: it asks an LLM which words of each sample are unwanted.

Samples become requests, one a passage and vote; replies become spans by majority. The other files
of this folder: `prompts_and_replies` (texts and parsing), `reply_cache` (replies on disk),
`report`, `api_client`, `retries`, `http_client` (limits), `batch_api`.
"""

import asyncio
import concurrent.futures
import dataclasses
import itertools
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tif.config.identifier import Identifier
from tif.data.samples import Sample, Span
from tif.data.templates import Prompts
from tif.identifiers.context_windows import split_into_passages
from tif.identifiers.generative import prompts_and_replies as texts
from tif.identifiers.generative import reply_cache as replies
from tif.identifiers.generative.keys import REPLY_KEYS, SECTION, Generative
from tif.identifiers.generative.prompts_and_replies import Outcome, Request, TokenCount
from tif.identifiers.generative.reply_cache import ReplyCache
from tif.identifiers.generative.report import (
    Estimate,
    LabelReport,
    describe_estimate,
    describe_report,
)
from tif.identifiers.registration import identifier
from tif.identifiers.segmentation import find_words
from tif.identifiers.span_operations import agreement, majority, merge_spans, shift_spans

# The stretches of a sample's answer: offset in the answer, and a request for each vote.
Passages = list[tuple[int, list[Request]]]


class Incomplete(ValueError):
    """Some samples have no answer; the others' answers are cached. One line.

    Attributes:
        samples: all samples in order; `unwanted` is None where the answer is missing.
        report: requests and cost.
    """

    def __init__(self, message: str, samples: tuple[Sample, ...], report: LabelReport) -> None:
        super().__init__(message)
        self.samples, self.report = samples, report


def _find_problems(section: Identifier) -> list[str]:
    return [f"{SECTION}.{line}" for line in section.keys_of(Generative).find_problems()]


def _describe(section: Identifier) -> dict[str, Any]:
    settings = dataclasses.asdict(section.keys_of(Generative))
    return {name: settings[name] for name in REPLY_KEYS} | {"prompts": texts.hash_prompts()}


@identifier(
    "generative", title="an LLM behind an OpenAI-compatible endpoint says so", keys=Generative,
    asks_server=True, check=_find_problems, describe=_describe,
)  # fmt: skip
def run(section: Identifier, samples: Sequence[Sample], prompts: Prompts) -> tuple[Sample, ...]:
    """Return the samples with the words that an LLM calls unwanted."""
    settings = section.keys_of(Generative)
    return identify_by_llm(settings, samples, Path(os.path.expanduser(settings.cache)))


def identify_by_llm(
    settings: Generative, samples: Sequence[Sample], cache_folder: Path
) -> tuple[Sample, ...]:
    """Return the samples with the words that the model calls unwanted; print the report.

    With `dry_run`, print the requests and their cost, send none, and return the samples without
    spans (`unwanted` None). A sample without a prompt is a document.

    Raises:
        ValueError: As `label_samples`.
    """
    from tif.utils.terminal import console

    if settings.dry_run:
        lines = describe_estimate(estimate_cost(settings, samples, cache_folder))
        console.print("\n".join(lines), soft_wrap=True)
        return tuple(dataclasses.replace(sample, unwanted=None) for sample in samples)
    try:
        identified, report = label_samples(settings, samples, cache_folder)
    except Incomplete as incomplete:
        console.print("\n".join(describe_report(incomplete.report)), soft_wrap=True)
        raise
    console.print("\n".join(describe_report(report)), soft_wrap=True)
    return identified


def label_samples(
    settings: Generative, samples: Sequence[Sample], cache_folder: Path
) -> tuple[tuple[Sample, ...], LabelReport]:
    """Return the samples with their spans, and the report.

    Raises:
        Incomplete: If samples are left without an answer: one line that starts with a config key.
            No server, a wrong key, an unknown model or no money left stop it at once. Calling it
            again asks for what is left only.
        ValueError: If the settings are wrong: one line a problem.
    """
    passages = [_split_sample(settings, sample) for sample in samples]
    jobs = _unique_jobs(passages)
    identified, agreements = [], []
    with ReplyCache(cache_folder) as cache:
        cached = sum(job.key in cache.words for job in jobs)
        outcome = ask(settings, jobs, cache)
        report = LabelReport(**vars(outcome) | {"failed": {}}, samples=len(samples), cached=cached)
        for sample, passages_of_sample in zip(samples, passages, strict=True):
            spans = None
            votes = _unique_jobs([passages_of_sample])
            unfinished = [job for job in votes if replies.next_request(settings, job, cache)]
            if unfinished:
                report.failed[sample.id] = outcome.failed.get(unfinished[0].key, "not asked")
            else:
                spans, missing, similarity = _collect_votes(settings, passages_of_sample, cache)
                report.missing += tuple((sample.id, string) for string in missing)
                agreements.append(similarity)
            identified.append(dataclasses.replace(sample, unwanted=spans))
        report.total_cost = replies.watch_jobs(settings, jobs, cache).cost(settings)
    report.cost = _price(settings, report.tokens)
    report.empty = tuple(sample.id for sample in identified if sample.unwanted == ())
    if settings.votes > 1 and agreements:
        report.agreement = statistics.fmean(agreements)
    if report.failed:
        raise Incomplete(_describe_failure(report), tuple(identified), report)
    return tuple(identified), report


def estimate_cost(settings: Generative, samples: Sequence[Sample], cache_folder: Path) -> Estimate:
    """Return what `label_samples` would ask and pay, as far as it is known before the replies."""
    jobs = _unique_jobs([_split_sample(settings, sample) for sample in samples])
    with ReplyCache(cache_folder) as cache:
        cached = sum(job.key in cache.words for job in jobs)
        unfinished = [replies.next_request(settings, job, cache) for job in jobs]
        paid = replies.watch_jobs(settings, jobs, cache).cost(settings)
    requests = [request for request in unfinished if request is not None]
    tokens = sum((texts.estimate_tokens(settings, request) for request in requests), TokenCount())
    most = sum((texts.bound_tokens(settings, request) for request in requests), TokenCount())
    price = _price(settings, tokens)
    at_most = most.cost(settings)
    return Estimate(len(samples), len(requests), cached, tokens, price, at_most, paid)


def _split_sample(settings: Generative, sample: Sample) -> Passages:
    """Return the sample's passages; those without a word (blanks, punctuation) are left out."""
    problems = settings.find_problems()
    if problems:
        raise ValueError("\n".join(f"{SECTION}.{problem}" for problem in problems))

    def count_characters(stretches: Sequence[str]) -> list[int]:
        return [len(stretch) for stretch in stretches]

    passages = []
    budget = settings.window_characters
    for passage in split_into_passages(sample.answer, count_characters, budget):
        if any(find_words(sample.answer[passage.start : passage.end])):
            votes = range(settings.votes)
            requests = [texts.make_request(settings, sample, n, passage) for n in votes]
            passages.append((passage.start, requests))
    return passages


def _unique_jobs(samples: Sequence[Passages]) -> list[Request]:
    """Return the requests of all samples; equal texts are asked for once."""
    jobs = {}
    for _, votes in itertools.chain.from_iterable(samples):
        jobs.update({job.key: job for job in votes})
    return list(jobs.values())


def _collect_votes(
    settings: Generative, passages: Passages, cache: ReplyCache
) -> tuple[tuple[Span, ...], tuple[str, ...], float]:
    """Return a sample's spans by majority, strings that are not in it, and the agreement."""
    spans: list[Span] = []
    missing: list[str] = []
    agreements: list[float] = []
    for start, jobs in passages:
        replies_of_jobs = [replies.find_spans(settings, job, cache) for job in jobs]
        votes = [spans_of_vote for spans_of_vote, _ in replies_of_jobs]
        for _, missing_of_vote in replies_of_jobs:
            missing += missing_of_vote
        spans += shift_spans(majority(votes), start)
        agreements.append(agreement(jobs[0].text, votes))
    similarity = statistics.fmean(agreements or [1.0])
    return merge_spans(spans), tuple(dict.fromkeys(missing)), similarity


def ask(
    settings: Generative,
    jobs: Sequence[Request],
    cache: ReplyCache,
    earlier: Sequence[Request] = (),
) -> Outcome:
    """Ask what is not answered yet, from inside or outside an event loop (a notebook has one).

    `earlier`: other requests whose cost counts against `max_cost` too.
    """
    waiting = [job for job in jobs if replies.next_request(settings, job, cache)]
    if not waiting:
        return Outcome()
    # The openai package takes a second or two to import, and the rest does without.
    from tif.identifiers.generative.api_client import ApiClient, ask_one_by_one
    from tif.identifiers.generative.batch_api import ask_in_batches

    async def ask_all() -> Outcome:
        client = ApiClient(settings, cache)
        paid_before = replies.watch_jobs(settings, [*jobs, *earlier], cache)
        unanswered_before = cache.count_unanswered()
        async with client.openai:
            await (ask_in_batches if settings.batch_api else ask_one_by_one)(client, waiting)
        client.outcome.tokens = cache.paid - paid_before
        client.outcome.uncounted += cache.count_unanswered() - unanswered_before
        return client.outcome

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(ask_all())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, ask_all()).result()


def _price(settings: Generative, tokens: TokenCount) -> float | None:
    """Return the tokens' cost; None without prices."""
    return tokens.cost(settings) if settings.price_in or settings.price_out else None


def _describe_failure(report: LabelReport) -> str:
    """Return one line that says what is left to do and why."""
    done = report.samples - len(report.failed)
    state = f"({done} of {report.samples} samples are done and kept; run it again to go on)"
    if report.stopped:
        return f"{report.stopped} {state}"
    name, reason = next(iter(report.failed.items()))
    count = f"{len(report.failed)} samples have no answer"
    return f"identifier.generative: {count}, e.g. {name}: {reason} {state}"
