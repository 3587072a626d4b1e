"""The identifier that asks a language model, behind any OpenAI-compatible endpoint, which words are unwanted."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from tif.config.identifier import Generative
from tif.data.samples import Sample, Span
from tif.identifiers import words
from tif.identifiers.generative import asking
from tif.identifiers.generative.answers import Answers
from tif.identifiers.generative.report import Estimate, Report
from tif.identifiers.generative.requests import Request, first, likely_tokens, most_tokens
from tif.identifiers.span_file import merge
from tif.identifiers.windows import cuts
from tif.utils.terminal import console


class Incomplete(ValueError):
    """Some samples have no answer; the others' answers are kept. One line.

    Attributes:
        samples: all samples in order; `unwanted` is None where the answer is missing.
        report: what was asked and what it cost.
    """

    def __init__(self, message: str, samples: tuple[Sample, ...], report: Report) -> None:
        super().__init__(message)
        self.samples, self.report = samples, report


def generative(cfg: Generative, samples: Sequence[Sample], cache: Path) -> tuple[Sample, ...]:
    """The samples with the words that the model calls unwanted; prints the report.

    With `dry_run` it prints what would be asked and what that costs, asks nothing, and gives the samples back without
    spans (`unwanted` None).

    Args:
        cfg: the settings.
        samples: question/answer pairs; a sample without a prompt is a passage of a document.
        cache: folder of the answers, read and written.

    Raises:
        ValueError: As `label`.
    """
    if cfg.dry_run:
        console.print("\n".join(estimate(cfg, samples, cache).lines()), markup=False)
        return tuple(dataclasses.replace(sample, unwanted=None) for sample in samples)
    try:
        found, report = label(cfg, samples, cache)
    except Incomplete as incomplete:
        _tell(incomplete.report)
        raise
    _tell(report)
    return found


def label(cfg: Generative, samples: Sequence[Sample], cache: Path) -> tuple[tuple[Sample, ...], Report]:
    """As `generative`, never dry, with the report.

    Raises:
        Incomplete: If samples are left without an answer: one line that starts with a config key. No server, a wrong
            key, an unknown model or no money left stop it at once. Calling it again asks for what is left only.
        ValueError: If the settings are wrong: one line a problem.
    """
    jobs = _jobs(cfg, samples)
    with Answers(cache) as answers:
        unique = _unique(jobs)
        kept = sum(job.key in answers.words for job in unique)
        outcome = asking.ask(cfg, unique, answers)
        results = [_result(cfg, s, own, answers, outcome.failed) for s, own in zip(samples, jobs, strict=True)]
        agreements = [r.agreement for r in results if not r.failed]
        report = Report(
            samples=len(samples),
            asked=outcome.asked,
            kept=kept,
            prompt_tokens=outcome.paid[0],
            answer_tokens=outcome.paid[1],
            cost=cfg.cost(*outcome.paid) if cfg.price_in or cfg.price_out else None,
            cost_in_all=asking.spent(cfg, unique, answers),
            missing=tuple((r.sample.id, word) for r in results for word in r.missing),
            empty=tuple(r.sample.id for r in results if r.sample.unwanted == ()),
            failed={r.sample.id: r.failed for r in results if r.failed},
            agreement=_mean(agreements) if cfg.votes > 1 and agreements else None,
        )
    labelled = tuple(r.sample for r in results)
    if report.failed:
        raise Incomplete(report.failure(outcome.stopped), labelled, report)
    return labelled, report


def estimate(cfg: Generative, samples: Sequence[Sample], cache: Path) -> Estimate:
    """What `label` would ask and pay, as far as it is known before the answers: without second questions.

    Raises:
        ValueError: If the settings are wrong: one line a problem.
    """
    jobs = _unique(_jobs(cfg, samples))
    with Answers(cache) as answers:
        waiting = [request for job in jobs if (request := asking.pending(cfg, job, answers))]
        tokens = [likely_tokens(cfg, request) for request in waiting]
        prompt, answer = sum(p for p, _ in tokens), sum(a for _, a in tokens)
        return Estimate(
            samples=len(samples),
            requests=len(waiting),
            kept=sum(job.key in answers.words for job in jobs),
            prompt_tokens=prompt,
            answer_tokens=answer,
            cost=cfg.cost(prompt, answer) if cfg.price_in or cfg.price_out else None,
            at_most=sum(cfg.cost(*most_tokens(cfg, request)) for request in waiting),
            already=asking.spent(cfg, jobs, answers),
        )


def majority(votes: Sequence[Sequence[Span]]) -> tuple[Span, ...]:
    """The characters that more than half of the votes cover."""
    edges = sorted(edge for spans in votes for s in merge(spans) for edge in ((s.start, 1), (s.end, -1)))
    kept, depth = [], 0
    for (at, step), (following, _) in itertools.pairwise(edges):
        depth += step
        if following > at and 2 * depth > len(votes):
            kept.append(Span(at, following))
    return merge(kept)


def agreement(text: str, votes: Sequence[Sequence[Span]]) -> float:
    """Mean Jaccard similarity of all pairs of votes, over the words of the text that they touch: 0 to 1.

    1 where neither of two votes has a word, and where there is one vote only.
    """
    there = list(words.words(text))
    touched = [{w for w in there for s in spans if s.start < w.end and w.start < s.end} for spans in votes]
    pairs = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in itertools.combinations(touched, 2)]
    return math.fsum(pairs) / len(pairs) if pairs else 1.0


@dataclasses.dataclass(frozen=True)
class _Result:
    """One sample's: labelled, or why not."""

    sample: Sample
    missing: tuple[str, ...] = ()
    agreement: float = 1.0
    failed: str | None = None


@dataclasses.dataclass(frozen=True)
class _Passage:
    """A stretch of a sample's answer, all of it where it is short: its offset and its votes."""

    start: int
    votes: list[Request]


def _result(
    cfg: Generative, sample: Sample, passages: Sequence[_Passage], answers: Answers, failed: dict[str, str]
) -> _Result:
    """All votes of a sample together; a sample with a vote missing has none."""
    for job in _unique([passages]):
        if asking.pending(cfg, job, answers):
            blank = dataclasses.replace(sample, unwanted=None)
            return _Result(blank, failed=failed.get(job.key, "not asked"))
    spans, missing, agreements = list[Span](), dict[str, None](), list[float]()
    for passage in passages:
        found = [asking.found(cfg, job, answers) for job in passage.votes]
        votes = [own for own, _ in found]
        spans += [Span(s.start + passage.start, s.end + passage.start) for s in majority(votes)]
        missing |= dict.fromkeys(word for _, named in found for word in named)
        agreements.append(agreement(passage.votes[0].text, votes))
    labelled = dataclasses.replace(sample, unwanted=merge(spans))
    return _Result(labelled, tuple(missing), _mean(agreements or [1.0]))


def _jobs(cfg: Generative, samples: Sequence[Sample]) -> list[list[_Passage]]:
    """Each sample's passages; those without a word (blanks, punctuation) are not asked about."""
    if problems := cfg.find_problems():
        raise ValueError("\n".join(f"identifier.generative.{problem}" for problem in problems))
    found = []
    for s in samples:
        own = [
            cut
            for cut in cuts(s.answer, _characters, cfg.window_characters)
            if any(words.words(s.answer[cut.first : cut.last]))
        ]
        found.append([_Passage(cut.first, [first(cfg, s, vote, cut) for vote in range(cfg.votes)]) for cut in own])
    return found


def _characters(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


def _unique(jobs: Sequence[Sequence[_Passage]]) -> list[Request]:
    """Equal texts are asked for once."""
    return list({job.key: job for passages in jobs for passage in passages for job in passage.votes}.values())


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _tell(report: Report) -> None:
    console.print("\n".join(report.lines()), markup=False, soft_wrap=True)
