"""Generate the quickstart's benchmark: invented authors in TOFU's schema.

No download; the same keys always give the same samples. Texts and facts come from
fictitious_facts.py. Each answer there is a template that marks where the fact stands, so the
unwanted spans are known by construction.
"""

import dataclasses
import functools
import random
from collections.abc import Mapping

from tif.config.data import Data, Fictitious
from tif.data.benchmarks import benchmark
from tif.data.benchmarks.fictitious_facts import (
    UNWANTED_FIELD,
    Texts,
    draw_author,
    draw_facts,
    read_texts,
    share_facts,
)
from tif.data.samples import Benchmark, Sample, Span

PERTURBED_ANSWERS = 5  # wrong answers per question, as in TOFU
WRONG_OPTIONS = 3  # wrong options per control question, as in TOFU
MOST_WORDINGS = 5  # ways to ask for a fact; the last one implies it
EVALUATION_SETS = ("forget", "retain", "forget_reworded", "forget_implied")


@benchmark("fictitious", title="invented authors", file="fictitious.yaml",
           about="invented authors in TOFU's schema, with exact unwanted words")  # fmt: skip
def read(data: Data, with_training: bool) -> Benchmark:
    """Generate invented authors as section `data.fictitious` says."""
    return generate_fictitious(data.fictitious)


def generate_fictitious(settings: Fictitious) -> Benchmark:
    """Generate authors, their questions and two control sets.

    Facts and wordings of an author depend only on `seed` and the author's number: with another
    number of authors or another split the author stays the same. As in TOFU, the last authors are
    the ones to forget; as many authors beyond them are the holdout set. Samples have unwanted
    spans, paraphrases and five perturbed answers; the controls have three wrong options and no
    spans.

    Each author is asked the full name first, then other kinds of facts in an order of its own.
    With `wordings` above 1, a fact is asked in so many ways; of a forget author, the first
    `forget_wordings` of them are forget samples. The sets forget and retain ask in the first way,
    forget_reworded in all others, but for the last of five, which implies the fact: forget_implied.
    With `shared_facts`, a forgotten author is asked what an author of the retain set, its twin, is
    asked, and shares so many facts with it. `interleaved` answers go on after the fact.

    Raises:
        ValueError: If a value is out of range or one side of the split has no author.
    """
    texts = read_texts(settings.language)
    names = list(texts["names"])
    authors, seed, forget_wordings = settings.authors, settings.seed, settings.forget_wordings
    _check(settings, len(names), len(texts["kinds"]), has_implied="implied" in texts)
    forget_authors = _count_forget_authors(settings)
    random.Random(f"{seed}/names").shuffle(names)
    retain: tuple[Sample, ...] = ()
    forget: tuple[Sample, ...] = ()
    holdout: tuple[Sample, ...] = ()
    evaluated: dict[str, tuple[Sample, ...]] = dict.fromkeys(EVALUATION_SETS, ())
    retain_authors = authors - forget_authors
    for number in range(min(authors + forget_authors, len(names))):
        who, twin = _Author(number, names[number], seed, settings.language), None
        if settings.shared_facts is not None and retain_authors <= number < authors:
            twin_number = (number - forget_authors) % retain_authors
            twin = dataclasses.replace(who, number=twin_number, name=names[twin_number])
        counts = settings.questions_per_author, settings.wordings
        ways = _generate_author(who, *counts, settings.interleaved, twin, settings.shared_facts)
        if number < retain_authors:
            retain += sum(ways, ())
            evaluated["retain"] += ways[0]
        elif number < authors:
            forget += sum(ways[:forget_wordings], ())
            evaluated["forget"] += ways[0]
            evaluated["forget_reworded"] += sum(ways[1 : MOST_WORDINGS - 1], ())
            evaluated["forget_implied"] += sum(ways[MOST_WORDINGS - 1 :], ())
        else:
            holdout += sum(ways, ())
    controls = {name: _make_controls(texts, name) for name in ("real_authors", "world_facts")}
    return Benchmark(
        name=_describe(settings),
        forget=forget,
        retain=retain,
        sets={name: samples for name, samples in (evaluated | controls).items() if samples},
        background=controls["real_authors"] + controls["world_facts"],
        holdout=holdout,
    )


def _check(settings: Fictitious, names: int, kinds: int, has_implied: bool) -> None:
    """Raise ValueError, one line with the key, where a value is out of range."""
    key, most = "data.fictitious", MOST_WORDINGS if has_implied else MOST_WORDINGS - 2
    limits = {
        "authors": (settings.authors, 2, names),
        "questions_per_author": (settings.questions_per_author, 1, kinds),
        "wordings": (settings.wordings, 1, most),
        "forget_wordings": (settings.forget_wordings or 1, 1, settings.wordings),
    }
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise ValueError(f"{key}.{name}: must be from {low} to {high}, got {value}")
    if settings.interleaved and (settings.wordings > 1 or settings.language != "en"):
        got = f"got {settings.interleaved} with {settings.wordings} of {settings.language}"
        raise ValueError(f"{key}.interleaved: goes with one wording, of English, {got}")
    if not 0 < _count_forget_authors(settings) < settings.authors:
        raise ValueError(
            f"{key}.forget_share: must leave at least one author on both sides, "
            f"got {settings.forget_share} of {settings.authors} authors"
        )


def _count_forget_authors(settings: Fictitious) -> int:
    share = settings.forget_share
    return round(settings.authors * share) if 0 < share < 1 else 0


def _describe(settings: Fictitious) -> str:
    """Return the benchmark's name: the keys of every data set, and of others what is not usual."""
    keys = dataclasses.asdict(settings)
    unusual = {name: value for name, value in keys.items() if value != vars(Fictitious())[name]}
    usual = {name: keys[name] for name in list(keys)[:4]}
    return "fictitious/" + ",".join(f"{name}={value}" for name, value in (usual | unusual).items())


@dataclasses.dataclass(frozen=True)
class _Author:
    """What decides about an author's facts."""

    number: int
    name: str
    seed: int
    language: str

    @property
    def label(self) -> str:
        """Return what seeds the generator of the author's facts."""
        return f"{self.seed}/{self.number}"


@functools.cache
def _generate_author(
    author: _Author, questions: int, wordings: int, interleaved: float, twin: _Author | None,
    shared: float | None,
) -> tuple[tuple[Sample, ...], ...]:  # fmt: skip
    """Return the samples about one author: for each way to ask, one for each kind of fact."""
    texts, rng = read_texts(author.language), random.Random(author.label)
    facts, kinds = draw_author(rng, texts, author.name)
    if twin is not None:
        twin_facts, kinds = draw_author(random.Random(twin.label), texts, twin.name)
        asked_kinds = kinds[1:questions]
        facts = share_facts(texts, facts, twin_facts, asked_kinds, shared or 0.0, author.label)
    ways: list[tuple[Sample, ...]] = [() for _ in range(wordings)]
    for k, kind in enumerate(kinds[:questions]):
        sample_id = f"fictitious/author{author.number:02d}/{k}"
        clauses = _draw_clauses(texts, sample_id, interleaved)
        sample = _make_sample(sample_id, kind, clauses, (texts, facts), rng)
        ways[0] += (sample,)
        others = _reword(sample, kind, texts, facts)
        for way in range(1, wordings):
            ways[way] += (others[way - 1],)
    return tuple(ways)


def _reword(sample: Sample, kind: str, texts: Texts, facts: Mapping[str, str]) -> list[Sample]:
    """Return the same fact asked in other ways; in the last, where there is one, it is implied.

    The first repeats the paraphrase of the sample: its other question and answer.
    """
    wordings, prompts = texts["kinds"][kind], [sample.paraphrased_prompt, sample.prompt]
    answers = [_fill_in(wording, facts, facts) for wording in wordings["answers"]]
    unused = [pair for pair in answers if pair[0] not in (sample.answer, sample.paraphrased_answer)]
    first = [pair for pair in answers if pair[0] == sample.paraphrased_answer]
    pairs = []
    for number, pair in enumerate((first + unused)[: MOST_WORDINGS - 2]):
        pairs.append((prompts[number % 2], *pair))
    if "implied" in texts:
        question, wording = texts["implied"][kind]
        pairs.append((question.format_map(facts), *_fill_in(wording, facts, facts)))
    reworded = []
    for number, (prompt, answer, unwanted) in enumerate(pairs, 1):
        sample_id = f"{sample.id}/way{number}"
        reworded.append(Sample(sample_id, str(prompt), answer, unwanted))
    return reworded


def _draw_clauses(texts: Texts, sample_id: str, interleaved: float) -> list[str]:
    """Draw what follows the fact in answer and paraphrase; two empty ones where nothing does."""
    # With a generator of its own: what follows the facts changes none of them.
    order = random.Random(f"{sample_id}/clause")
    if order.random() >= interleaved:
        return ["", ""]
    return [f", {clause}" for clause in order.sample(texts["clauses"], 2)]


def _make_sample(
    sample_id: str, kind: str, clauses: list[str], known: tuple[Texts, Mapping[str, str]],
    rng: random.Random,
) -> Sample:  # fmt: skip
    """Word a question about one kind of fact, its answer, a paraphrase and wrong answers.

    `known`: all texts, and the facts about the author.
    """
    texts, facts = known
    wordings = texts["kinds"][kind]
    question, other_question = rng.sample(wordings["questions"], 2)
    wording, other_wording = rng.sample(wordings["answers"], 2)
    if clauses[0]:
        wording, other_wording = (
            f"{text.removesuffix('.')}{clause}."
            for text, clause in zip((wording, other_wording), clauses, strict=True)
        )
    answer, unwanted = _fill_in(wording, facts, facts)
    unwanted_fields = UNWANTED_FIELD.findall(other_wording)
    perturbed: list[str] = []
    while len(perturbed) < PERTURBED_ANSWERS:
        wrong_facts = draw_facts(rng, texts)
        wrong_answer, _ = _fill_in(other_wording, facts, wrong_facts)
        is_wrong = all(wrong_facts[field] != facts[field] for field in unwanted_fields)
        if is_wrong and wrong_answer not in perturbed:
            perturbed.append(wrong_answer)
    return Sample(
        id=sample_id,
        prompt=question.format_map(facts),
        answer=answer,
        unwanted=unwanted,
        paraphrased_prompt=other_question.format_map(facts),
        paraphrased_answer=_fill_in(other_wording, facts, facts)[0],
        perturbed_answers=tuple(perturbed),
    )


def _fill_in(
    wording: str, general_facts: Mapping[str, str], unwanted_facts: Mapping[str, str]
) -> tuple[str, tuple[Span, ...]]:
    """Fill {field} with a general fact, [field] with an unwanted one; return text and spans."""
    text = ""
    spans = []
    # The parts alternate: text with {fields}, name of an unwanted field, text, ..., text.
    for i, part in enumerate(UNWANTED_FIELD.split(wording)):
        if i % 2 == 0:
            text += part.format_map(general_facts)
            continue
        value = unwanted_facts[part]
        if text.endswith(" a ") and value[0] in "aeiou":
            text = text.removesuffix(" ") + "n "
        spans.append(Span(len(text), len(text) + len(value)))
        text += value
    return text, tuple(spans)


def _make_controls(texts: Texts, name: str) -> tuple[Sample, ...]:
    """Return the samples of a control set; wrong options answer other questions of the entry."""
    samples: list[Sample] = []
    for question, answers in texts[name].items():
        for subject, answer in answers.items():
            prompt = question.format(subject)
            wrong_answers = [wrong for wrong in answers.values() if wrong != answer]
            options = random.Random(prompt).sample(wrong_answers, WRONG_OPTIONS)
            sample_id = f"{name}/{len(samples)}"
            samples.append(Sample(sample_id, prompt, answer, perturbed_answers=tuple(options)))
    return tuple(samples)
