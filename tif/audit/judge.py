"""A judge of answers: an LLM finds the facts that an answer states in other words.

Called by `sample`, with `sample.judge`. Asked is about every different answer in which a fact's
words do not stand, a request each: the question, the answer and those facts, between tags that
carry a hash of them, so that no text can close its tag or reach another request. A reply is a JSON
list; what is not literally one of the facts counts for nothing. Client, limits and cache are those
of the identifier `generative`: no reply is paid for twice.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tif.audit.attack import AttackInputs
from tif.audit.facts import list_facts
from tif.audit.keys import AuditKeys
from tif.config.errors import ConfigError
from tif.data.samples import Sample
from tif.identifiers.generative import identify
from tif.identifiers.generative import prompts_and_replies as texts
from tif.identifiers.generative import reply_cache as replies
from tif.identifiers.generative.keys import Generative
from tif.identifiers.generative.prompts_and_replies import Request
from tif.identifiers.segmentation import normalise, states

Answer = tuple[str, str]  # id of the sample, text


def endpoint_of(settings: AuditKeys, model: str) -> Generative:
    """Return the endpoint of a judge, which is asked once about each answer."""
    endpoint = settings.identifier.keys_of(Generative)
    return dataclasses.replace(endpoint, model=model, votes=1)


def find_problems(settings: AuditKeys, model: str) -> list[str]:
    """Return what is wrong with the keys of a judge's endpoint, one line each."""
    endpoint = endpoint_of(settings, model)
    problems = [f"identifier.generative.{problem}" for problem in endpoint.find_problems()]
    if endpoint.dry_run:
        problems.append("identifier.generative.dry_run: sends nothing, so nothing can be judged; "
            "want false, or no sample.judge")
    return problems


def check(settings: AuditKeys, model: str) -> None:
    """Raise ValueError if there is no key for the judge; nothing is sent."""
    from tif.identifiers.generative.api_client import read_key

    read_key(endpoint_of(settings, model))


def judge_answers(
    inputs: AttackInputs, model: str, samples: Sequence[Sample], answers: Sequence[Sequence[str]]
) -> dict[Answer, frozenset[str]]:
    """Return the facts that the judge finds in answers whose words do not hold them.

    Args:
        inputs: with the endpoint; what the judge was asked of the audit's other models counts
            against `max_cost`, and is kept there.
        model: the judge, `sample.judge`.
        samples: the questions.
        answers: to each of them.

    Raises:
        ConfigError: If answers are left without a verdict (no server, no money): one line.
    """
    endpoint = endpoint_of(inputs.settings, model)
    requests = list_requests(endpoint, samples, answers)
    with replies.ReplyCache(Path(os.path.expanduser(endpoint.cache))) as cache:
        jobs = {request.key: request for request in requests.values()}
        earlier = list(inputs.judged.values())
        inputs.judged.update(jobs)
        outcome = identify.ask(endpoint, list(jobs.values()), cache, earlier)
        left = [job for job in jobs.values() if replies.next_request(endpoint, job, cache)]
        if left:
            reason = outcome.stopped or outcome.failed.get(left[0].key, "not asked")
            raise ConfigError(
                f"sample.judge: {len(left)} of {len(jobs)} answers have no verdict ({reason}); the "
                "others' verdicts are kept: run it again to go on"
            )
        verdicts = {}
        for answer, request in requests.items():
            verdicts[answer] = _read_verdict(endpoint, request, cache)
    return verdicts


def list_requests(
    endpoint: Generative, samples: Sequence[Sample], answers: Sequence[Sequence[str]]
) -> Mapping[Answer, Request]:
    """Return a request for each different answer that does not state all facts literally."""
    prompt, requests = texts.load_prompt("judge"), {}
    for sample, answers_of_sample in zip(samples, answers, strict=True):
        for answer in dict.fromkeys(answers_of_sample):
            facts = [fact for fact in list_facts(sample) if not states(answer, fact)]
            if facts and normalise(answer):
                lines = "\n".join(facts)
                parts = {"question": sample.prompt, "answer": answer, "facts": lines}
                messages = texts.fill_prompt(prompt, parts)
                key = texts.hash_request(endpoint, messages)
                requests[sample.id, answer] = Request(messages, lines, "", 0, key)
    return requests


def _read_verdict(
    endpoint: Generative, request: Request, cache: replies.ReplyCache
) -> frozenset[str]:
    """Return the facts that the replies name, each as a whole."""
    spans, _ = replies.find_spans(endpoint, request, cache)
    stated, start = set(), 0
    for fact in request.text.split("\n"):
        end = start + len(fact)
        if any(span.start <= start and end <= span.end for span in spans):
            stated.add(fact)
        start = end + 1
    return frozenset(stated)
