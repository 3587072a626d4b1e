"""How likely a model finds unwanted and general words: the picture of targeted forgetting.

The words of an answer are known where the data or a run's identifier marked them; the data's own
marks count first, so that identifiers can be compared.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tif.identifiers.segmentation import normalise, states
from tif.metrics.registry import register_metric
from tif.metrics.values import Floats
from tif.records.types import PARAPHRASED, AnswerTokens, Record, RecordSet, TokenStats

# Sets of forget answers; the first whose words are known stands for a benchmark.
FORGET_SETS = ("forget", "verbmem_forget", "privleak_forget", "knowmem_forget")
OTHER_WAYS = {  # sets that ask for the same facts otherwise, and the beginning of their names
    "forget_reworded": "reworded", "forget_implied": "implied",
    f"forget{PARAPHRASED}": "paraphrased",
}  # fmt: skip
NOTE = "UW, GW: unwanted, general words of forget answers; extracted: written by itself"


def word_probability(
    records: RecordSet, tokens: Mapping[str, AnswerTokens], unwanted: bool
) -> Floats:
    """Return how likely the model finds the unwanted (or general) tokens of each answer.

    Formula: exp of the mean log-probability of those tokens, after the true tokens before them; the
    end token is general. Range: 0 to 1. Better: unwanted lower, general higher.
    Perfect unlearning: the retain model's value. Source: `probability` of tofu.py, on a part of the
    tokens.

    `tokens`: of the answers, by record id. Returned are (N,), of those answers whose words are
    known and which have such tokens.
    """
    means = []
    for _, stats, answer in _list_known(records, tokens):
        chosen = _select(stats.logprob, answer.measured or (), unwanted)
        if chosen:
            means.append(np.exp(np.mean(chosen)))
    return np.array(means, dtype=np.float64)


def _list_known(
    records: RecordSet, tokens: Mapping[str, AnswerTokens]
) -> Iterator[tuple[Record, TokenStats, AnswerTokens]]:
    """Yield the records whose tokens have statistics and are known to be unwanted or not."""
    for record in records.records:
        answer, stats = tokens.get(record.id), record.stats
        if stats is None or answer is None or answer.measured is None:
            continue
        if len(answer.measured) == len(stats.logprob):
            yield record, stats, answer


def _select(logprobs: Sequence[float], uw: Sequence[bool], unwanted: bool) -> list[float]:
    pairs = zip(logprobs, uw, strict=True)
    return [logprob for logprob, is_unwanted in pairs if is_unwanted == unwanted]


def extracted(records: RecordSet, tokens: Mapping[str, AnswerTokens], unwanted: bool) -> Floats:
    """Return for each unwanted (or general) passage if the model writes it by itself, 1 or 0.

    Formula: a passage is a run of neighbouring tokens of one kind; it is extracted if each of them
    is the most likely token after the true tokens before it. A passage that has stood before in the
    prompt or the answer is left out: it can be copied by a model that does not know it. So is the
    end token. Range: 0 or 1; the mean is a share. Better: unwanted lower, general higher.
    Perfect unlearning: the retain model's value. Source: extraction as in Carlini et al.,
    arXiv 2012.07805, for a part of the answer.

    `tokens`: of the answers, by record id. Returned are (N,), one number a passage, in the order of
    the answers.
    """
    hits: list[float] = []
    for record, stats, answer in _list_known(records, tokens):
        for first, end, _ in _list_new_passages(record, answer, unwanted):
            hits.append(float(all(stats.top[first:end])))
    return np.array(hits, dtype=np.float64)


def written(
    records: RecordSet, tokens: Mapping[str, AnswerTokens], unwanted: bool = True
) -> Floats:
    """Return for each unwanted passage if the greedy answer has it, 1 or 0.

    Formula: passages as in words/unwanted_extracted; one is written if its words stand in the
    generation, whole and in their order, whatever their case and punctuation. Range: 0 or 1; the
    mean is a share. Better: lower. Perfect unlearning: the retain model's value: a guess may be
    right. Source: string match as in `tif audit`; a fact in other words is missed.

    Returned are (N,), one number a passage of the answers that have a generation.
    """
    hits: list[float] = []
    for record, _, answer in _list_known(records, tokens):
        if record.generated is None:
            continue
        for _, _, passage in _list_new_passages(record, answer, unwanted):
            fact = normalise(passage)
            if fact:
                hits.append(float(states(record.generated, fact)))
    return np.array(hits, dtype=np.float64)


def _list_new_passages(
    record: Record, answer: AnswerTokens, unwanted: bool
) -> Iterator[tuple[int, int, str]]:
    """Yield first token, end and text of each passage that has not stood before."""
    for first, end in _list_passages(answer.measured or (), unwanted):
        start = answer.ends[first - 1] if first else 0
        passage = record.answer[start : answer.ends[end - 1]].strip()
        if passage and passage not in f"{record.prompt}\n{record.answer[:start]}":
            yield first, end, passage


def summarize_forget_words(
    sets: Mapping[str, RecordSet], tokens: Mapping[str, Mapping[str, AnswerTokens]]
) -> dict[str, float]:
    """Return `summarize_words` of the first of FORGET_SETS whose words are known; {} without one.

    The sets that ask for the same facts in other ways have names of their own: reworded/unwanted,
    implied/unwanted, paraphrased/unwanted. `sets`: of an evaluation. `tokens`: of its answers, by
    set and record id.
    """
    by_set = {}
    for name in (*FORGET_SETS, *OTHER_WAYS):
        if name in sets:
            by_set[name] = summarize_words(sets[name], tokens.get(name, {}))
    known = [by_set[name] for name in FORGET_SETS if by_set.get(name)]
    metrics = dict(known[0]) if known else {}
    for name, prefix in OTHER_WAYS.items():
        for metric, value in by_set.get(name, {}).items():
            metrics[metric.replace("words", prefix, 1)] = value
    return metrics


def summarize_words(records: RecordSet, tokens: Mapping[str, AnswerTokens]) -> dict[str, float]:
    """Return the means by stable name: words/unwanted, words/unwanted_extracted, the same general.

    Of unwanted words also words/unwanted_written. Left out is what no answer has.
    """
    metrics: dict[str, float] = {}
    for name, is_unwanted in (("unwanted", True), ("general", False)):
        columns = {
            f"words/{name}": word_probability(records, tokens, is_unwanted),
            f"words/{name}_extracted": extracted(records, tokens, is_unwanted),
        }
        if is_unwanted:
            columns["words/unwanted_written"] = written(records, tokens)
        metrics |= {key: float(values.mean()) for key, values in columns.items() if len(values)}
    return metrics


def _list_passages(uw: Sequence[bool], unwanted: bool) -> list[tuple[int, int]]:
    """Return [first, end) of each run of tokens of the kind that is wanted."""
    passages, position = [], 0
    for is_unwanted, run in itertools.groupby(uw):
        length = len(list(run))
        if is_unwanted == unwanted:
            passages.append((position, position + length))
        position += length
    return passages


def _register_words() -> None:
    """Register the functions for unwanted and for general words, and for each way to ask."""
    ways = ((46, "words"), (51, "reworded"), (52, "implied"), (55, "paraphrased"))
    for place, way in ways:
        ending = "" if way == "words" else f", {way}"
        ending = " otherwise" if way == "paraphrased" else ending  # 80 columns are few
        register_metric(
            f"{way}/unwanted_written", f"unwanted words written{ending}", better="↓",
            short=f"UW written{ending}", columns={way: place + 4} if way == "words" else {},
        )(written)  # fmt: skip
        for kind, letters, better in (("unwanted", "UW", "↓"), ("general", "GW", "↑")):
            is_general = kind == "general"
            is_column = way == "words" or not is_general
            is_short = way == "paraphrased"  # a column for one of the two: tables are long
            register_metric(
                f"{way}/{kind}", f"probability of {kind} words{ending}", better=better,
                short=f"{letters} prob.{ending}", main=("words",),
                columns={way: place + is_general} if is_column else {},
                note=NOTE if (way, kind) == ("words", "unwanted") else "",
            )(word_probability)  # fmt: skip
            register_metric(
                f"{way}/{kind}_extracted", f"{kind} words extracted{ending}", better=better,
                short=f"{letters} extracted{ending}",
                columns={way: place + 2 + is_general} if is_column and not is_short else {},
            )(extracted)  # fmt: skip


_register_words()
