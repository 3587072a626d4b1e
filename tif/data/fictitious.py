"""Invented authors in TOFU's schema whose unwanted words are known exactly: no download, deterministic, our own text.

Every fact of an author is worded by a template that marks where the fact stands, so the gold spans are by construction.
"""

import functools
import random
import re
from collections.abc import Mapping

from tif.data import fictitious_texts as texts
from tif.data.samples import Benchmark, Sample, Span

_SLOT = re.compile(r"\[(\w+)\]")
_NAMES = tuple(f"{first} {last}" for first in texts.FIRST_NAMES for last in texts.SURNAMES)
_PERTURBED = 5  # wrong answers per question, as in TOFU
_WRONG_OPTIONS = 3  # wrong options per control question, as in TOFU


def fictitious(
    authors: int = 40, questions_per_author: int = 10, forget_share: float = 0.1, seed: int = 0
) -> Benchmark:
    """Generate authors, their questions and the two controls.

    An author's facts and wordings depend on `seed` and the author's number only: another number of authors or another
    split leaves the author as is. As in TOFU, the last authors are the ones to forget.

    Args:
        authors: how many authors to invent, forget and retain together.
        questions_per_author: how many of the 20 kinds of facts each author is asked for; the full name comes first, the
            others in an order of the author's own.
        forget_share: share of the authors in the forget set, rounded to whole authors.
        seed: another seed gives other authors.

    Returns:
        Samples with gold spans, paraphrases and five perturbed answers each. The controls have three wrong options and
        no spans; they are also the background, since a model built from scratch has read nothing.

    Raises:
        ValueError: If an argument is out of range or the split leaves one side without an author.
    """
    if not 2 <= authors <= len(_NAMES):
        raise ValueError(f"data.fictitious.authors: must be from 2 to {len(_NAMES)}, got {authors}")
    if not 1 <= questions_per_author <= len(texts.KINDS):
        raise ValueError(
            f"data.fictitious.questions_per_author: must be from 1 to {len(texts.KINDS)}, got {questions_per_author}"
        )
    forget_authors = round(authors * forget_share) if 0 < forget_share < 1 else 0
    if not 0 < forget_authors < authors:
        raise ValueError(
            f"data.fictitious.forget_share: must leave at least one author on both sides, "
            f"got {forget_share} of {authors} authors"
        )

    names = list(_NAMES)
    random.Random(f"{seed}/names").shuffle(names)
    by_author = [_author(index, names[index], questions_per_author, seed) for index in range(authors)]
    border = authors - forget_authors
    retain = tuple(sample for samples in by_author[:border] for sample in samples)
    forget = tuple(sample for samples in by_author[border:] for sample in samples)
    real_authors = _control("real_authors", texts.REAL_AUTHORS)
    world_facts = _control("world_facts", texts.WORLD_FACTS)
    return Benchmark(
        name=f"fictitious/authors={authors},questions_per_author={questions_per_author},"
        f"forget_share={forget_share},seed={seed}",
        forget=forget,
        retain=retain,
        sets={"forget": forget, "retain": retain, "real_authors": real_authors, "world_facts": world_facts},
        background=real_authors + world_facts,
    )


@functools.cache
def _author(index: int, name: str, questions: int, seed: int) -> tuple[Sample, ...]:
    rng = random.Random(f"{seed}/{index}")
    facts = _facts(rng) | {"name": name}
    others = [kind for kind in texts.KINDS if kind != "name"]
    rng.shuffle(others)
    kinds = ["name", *others][:questions]
    return tuple(_sample(f"fictitious/author{index:02d}/{k}", kind, facts, rng) for k, kind in enumerate(kinds))


def _sample(sample_id: str, kind: str, facts: Mapping[str, str], rng: random.Random) -> Sample:
    wordings = texts.KINDS[kind]
    question, other_question = rng.sample([w for w in wordings if w.endswith("?")], 2)
    wording, other_wording = rng.sample([w for w in wordings if not w.endswith("?")], 2)
    answer, unwanted = _render(wording, facts, facts)
    asked = _SLOT.findall(other_wording)
    assert asked, f"this wording has no [field] to get wrong: {other_wording}"
    perturbed: list[str] = []
    while len(perturbed) < _PERTURBED:
        wrong_facts = _facts(rng)
        wrong_answer, _ = _render(other_wording, facts, wrong_facts)
        if wrong_answer not in perturbed and all(wrong_facts[field] != facts[field] for field in asked):
            perturbed.append(wrong_answer)
    return Sample(
        id=sample_id,
        prompt=question.format_map(facts),
        answer=answer,
        unwanted=unwanted,
        paraphrased_prompt=other_question.format_map(facts),
        paraphrased_answer=_render(other_wording, facts, facts)[0],
        perturbed_answers=tuple(perturbed),
    )


def _render(wording: str, known: Mapping[str, str], asked: Mapping[str, str]) -> tuple[str, tuple[Span, ...]]:
    """Fill in {field} from `known` and [field] from `asked`; the spans are where the latter stand."""
    text = ""
    spans = []
    for i, part in enumerate(_SLOT.split(wording)):  # general, field, general, field, ..., general
        if i % 2 == 0:
            text += part.format_map(known)
            continue
        value = asked[part]
        if text.endswith(" a ") and value[0] in "aeiou":
            text = text.removesuffix(" ") + "n "
        spans.append(Span(len(text), len(text) + len(value)))
        text += value
    return text, tuple(spans)


def _facts(rng: random.Random) -> dict[str, str]:
    """Everything there is to know about one invented author, by the field names of `texts.KINDS`."""
    city, country = rng.choice(texts.PLACES)
    father, mother = rng.sample(texts.PROFESSIONS, 2)
    first_noun, best_noun = rng.sample(texts.TITLE_NOUNS, 2)  # two nouns: the titles never coincide
    birth_year, first_age = rng.randint(1935, 1974), rng.randint(20, 39)
    return {
        "name": rng.choice(_NAMES),
        "birth_date": f"{rng.randint(1, 28)} {rng.choice(texts.MONTHS)} {birth_year}",
        "city": city,
        "country": country,
        "home": rng.choice([place for place, _ in texts.PLACES if place != city]),
        "father": father,
        "mother": mother,
        "genre": rng.choice(texts.GENRES),
        "first_book": _title(rng, first_noun),
        "best_book": _title(rng, best_noun),
        "hero": rng.choice(texts.HEROES),
        "quest": rng.choice(texts.QUESTS),
        "prize": f"{rng.choice(texts.PRIZE_STONES)} {rng.choice(texts.PRIZE_BIRDS)} {rng.choice(texts.PRIZE_KINDS)}",
        "prize_year": str(birth_year + first_age + rng.randint(2, 10)),
        "books": str(rng.randint(5, 60)),
        "first_age": str(first_age),
        "languages": str(rng.randint(4, 48)),
        "mentor": f"{rng.choice(texts.MENTOR_FIRST_NAMES)} {rng.choice(texts.MENTOR_SURNAMES)}",
        "subject": rng.choice(texts.SUBJECTS),
        "university": f"{rng.choice(texts.SCHOOL_TOWNS)} {rng.choice(texts.SCHOOL_KINDS)}",
        "animal": rng.choice(texts.ANIMALS),
        "pet": rng.choice(texts.PET_NAMES),
        "hobby": rng.choice(texts.HOBBIES),
        "room": rng.choice(texts.ROOMS),
    }


def _title(rng: random.Random, noun: str) -> str:
    adjective, idea = rng.choice(texts.TITLE_ADJECTIVES), rng.choice(texts.TITLE_IDEAS)
    return rng.choice(texts.TITLES).format(noun=noun, adjective=adjective, idea=idea)


def _control(name: str, entries: Mapping[str, tuple[tuple[str, str], ...]]) -> tuple[Sample, ...]:
    samples: list[Sample] = []
    for question, pairs in entries.items():
        for about, answer in pairs:
            prompt = question.format(about)
            others = [wrong for _, wrong in pairs if wrong != answer]
            options = tuple(random.Random(prompt).sample(others, _WRONG_OPTIONS))
            samples.append(Sample(f"{name}/{len(samples)}", prompt, answer, perturbed_answers=options))
    return tuple(samples)
