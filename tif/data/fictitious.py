"""Generate the quickstart's benchmark: invented authors in TOFU's schema.

No download; the same arguments always give the same samples. The texts are in
fictitious_texts.yaml. Each answer there is a template that marks where the fact stands, so the
unwanted spans are known by construction. Called by `benchmarks.read_benchmark` and by tests.
"""

import functools
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tif.data.samples import Benchmark, Sample, Span

PERTURBED_ANSWERS = 5  # wrong answers per question, as in TOFU
WRONG_OPTIONS = 3  # wrong options per control question, as in TOFU
NEVER_SHARED = {"name", "birth_date"}  # a question for the name tells the date
UNWANTED_FIELD = re.compile(r"\[(\w+)\]")


def generate_fictitious(
    authors: int = 40, questions_per_author: int = 10, forget_share: float = 0.1, seed: int = 0,
    shared_facts: float | None = None, interleaved: float = 0.0,
) -> Benchmark:  # fmt: skip
    """Generate authors, their questions and two control sets.

    Facts and wordings of an author depend only on `seed` and the author's number: with another
    number of authors or another split the author stays the same. As in TOFU, the last authors are
    the ones to forget; as many authors beyond them are the holdout set. Samples have unwanted
    spans, paraphrases and five perturbed answers; the controls have three wrong options and no
    spans.

    Args:
        authors: number of authors, forget and retain set together.
        questions_per_author: how many of the 20 kinds of facts are asked about each author. The
            full name comes first, the others in an order of the author's own.
        forget_share: share of the authors in the forget set, rounded to whole authors.
        seed: another seed gives other authors.
        shared_facts: each forgotten author is asked what an author of the retain set, its twin, is
            asked. This share of the kinds of facts has the twin's values, and the others have
            none of them; name and date of birth are the author's own always. None: as drawn.
        interleaved: share of answers, of either set, that go on after the fact with a general
            clause. Paraphrase and wrong answers go on with another one.

    Raises:
        ValueError: If an argument is out of range or one side of the split has no author.
    """
    names = list(_all_names())
    forget_authors = _count_forgotten(authors, questions_per_author, forget_share)
    random.Random(f"{seed}/names").shuffle(names)
    retain: tuple[Sample, ...] = ()
    forget: tuple[Sample, ...] = ()
    holdout: tuple[Sample, ...] = ()
    retain_authors = authors - forget_authors
    draw = functools.partial(_generate_author, questions_per_author, seed, interleaved)
    for number in range(min(authors + forget_authors, len(names))):
        twin = None
        if shared_facts is not None and retain_authors <= number < authors:
            twin_number = (number - forget_authors) % retain_authors
            twin = twin_number, names[twin_number], shared_facts
        samples = draw(number, names[number], twin)
        if number < retain_authors:
            retain += samples
        elif number < authors:
            forget += samples
        else:
            holdout += samples
    controls = {name: _make_controls(name) for name in ("real_authors", "world_facts")}
    name = f"authors={authors},questions_per_author={questions_per_author}"
    name += f",forget_share={forget_share},seed={seed}"
    name += f",shared_facts={shared_facts}" if shared_facts is not None else ""
    name += f",interleaved={interleaved}" if interleaved else ""
    return Benchmark(
        name=f"fictitious/{name}",
        forget=forget,
        retain=retain,
        sets={"forget": forget, "retain": retain, **controls},
        background=controls["real_authors"] + controls["world_facts"],
        holdout=holdout,
    )


def _count_forgotten(authors: int, questions_per_author: int, forget_share: float) -> int:
    """Return how many authors are to be forgotten; ValueError where an argument is out of range."""
    names = _all_names()
    kinds = len(_texts()["kinds"])
    key = "data.fictitious"
    if not 2 <= authors <= len(names):
        raise ValueError(f"{key}.authors: must be from 2 to {len(names)}, got {authors}")
    if not 1 <= questions_per_author <= kinds:
        got = f"got {questions_per_author}"
        raise ValueError(f"{key}.questions_per_author: must be from 1 to {kinds}, {got}")
    forget_authors = round(authors * forget_share) if 0 < forget_share < 1 else 0
    if not 0 < forget_authors < authors:
        raise ValueError(
            f"{key}.forget_share: must leave at least one author on both sides, "
            f"got {forget_share} of {authors} authors"
        )
    return forget_authors


@functools.cache
def _texts() -> dict[str, Any]:
    path = Path(__file__).with_name("fictitious_texts.yaml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C ten times as fast
    texts: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), loader)
    return texts


@functools.cache
def _all_names() -> tuple[str, ...]:
    names = itertools.product(_texts()["first_names"], _texts()["surnames"])
    return tuple(f"{first} {last}" for first, last in names)


@functools.cache
def _generate_author(
    questions: int, seed: int, interleaved: float, number: int, name: str,
    twin: tuple[int, str, float] | None,
) -> tuple[Sample, ...]:  # fmt: skip
    """Return the samples about one author; `twin`: number, name and share of shared facts."""
    rng = random.Random(f"{seed}/{number}")
    facts, kinds = _draw_author(rng, name)
    if twin is not None:
        twin_number, twin_name, share = twin
        twin_facts, kinds = _draw_author(random.Random(f"{seed}/{twin_number}"), twin_name)
        facts = _share_facts(facts, twin_facts, kinds[1:questions], share, f"{seed}/{number}")
    samples = []
    for k, kind in enumerate(kinds[:questions]):
        sample_id = f"fictitious/author{number:02d}/{k}"
        samples.append(_make_sample(sample_id, kind, facts, rng, interleaved))
    return tuple(samples)


def _draw_author(rng: random.Random, name: str) -> tuple[dict[str, str], list[str]]:
    """Draw an author's facts, and the order in which kinds of facts are asked."""
    facts = _draw_facts(rng) | {"name": name}
    other_kinds = [kind for kind in _texts()["kinds"] if kind != "name"]
    rng.shuffle(other_kinds)
    return facts, ["name", *other_kinds]


def _share_facts(
    facts: dict[str, str], twin: Mapping[str, str], kinds: Sequence[str], share: float, seed: str
) -> dict[str, str]:
    """Return facts of which a share of the kinds has the twin's values, and the others have none.

    Fields that stand in two kinds, as the city of birth, are shared where either kind is.
    """
    fields = {}
    for kind in kinds:
        texts = " ".join(_texts()["kinds"][kind]["answers"])
        fields[kind] = set(UNWANTED_FIELD.findall(texts)) - NEVER_SHARED
    rng = random.Random(f"{seed}/shared")
    shared: set[str] = set()
    for kind in rng.sample(list(kinds), round(share * len(kinds))):
        shared |= fields[kind]
    different = set().union(*fields.values()) - shared
    drawn = dict(facts)
    for field in sorted(different):
        while drawn[field] == twin[field]:
            drawn[field] = _draw_facts(rng)[field]
    return drawn | {field: twin[field] for field in shared}


def _make_sample(
    sample_id: str, kind: str, facts: Mapping[str, str], rng: random.Random, interleaved: float
) -> Sample:
    """Word a question about one kind of fact, its answer, a paraphrase and wrong answers."""
    wordings = _texts()["kinds"][kind]
    question, other_question = rng.sample(wordings["questions"], 2)
    wording, other_wording = rng.sample(wordings["answers"], 2)
    # With a generator of its own: what follows the facts changes none of them.
    order = random.Random(f"{sample_id}/clause")
    if order.random() < interleaved:
        clauses = order.sample(_texts()["clauses"], 2)
        wording, other_wording = map(_append_clause, (wording, other_wording), clauses)
    answer, unwanted = _fill_in(wording, facts, facts)
    unwanted_fields = UNWANTED_FIELD.findall(other_wording)
    perturbed: list[str] = []
    while len(perturbed) < PERTURBED_ANSWERS:
        wrong_facts = _draw_facts(rng)
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


def _append_clause(wording: str, clause: str) -> str:
    return f"{wording.removesuffix('.')}, {clause}."


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


def _draw_facts(rng: random.Random) -> dict[str, str]:
    """Draw all facts about one invented author, by the field names of the wordings."""
    texts = _texts()

    def draw(pool: str) -> str:
        return str(rng.choice(texts[pool]))

    places = list(texts["places"].items())
    city, country = rng.choice(places)
    father, mother = rng.sample(texts["professions"], 2)
    # Two different nouns, so that the titles differ.
    first_noun, best_noun = rng.sample(texts["title_nouns"], 2)
    birth_year, first_age = rng.randint(1935, 1974), rng.randint(20, 39)
    # The order of the draws decides the facts: do not change it.
    return {
        "name": rng.choice(_all_names()),
        "birth_date": f"{rng.randint(1, 28)} {draw('months')} {birth_year}",
        "city": city,
        "country": country,
        "home": rng.choice([place for place, _ in places if place != city]),
        "father": father,
        "mother": mother,
        "genre": draw("genres"),
        "first_book": _draw_title(rng, first_noun),
        "best_book": _draw_title(rng, best_noun),
        "hero": draw("heroes"),
        "quest": draw("quests"),
        "prize": f"{draw('prize_stones')} {draw('prize_birds')} {draw('prize_kinds')}",
        "prize_year": str(birth_year + first_age + rng.randint(2, 10)),
        "books": str(rng.randint(5, 60)),
        "first_age": str(first_age),
        "languages": str(rng.randint(4, 48)),
        "mentor": f"{draw('mentor_first_names')} {draw('mentor_surnames')}",
        "subject": draw("subjects"),
        "university": f"{draw('school_towns')} {draw('school_kinds')}",
        "animal": draw("animals"),
        "pet": draw("pet_names"),
        "hobby": draw("hobbies"),
        "room": draw("rooms"),
    }


def _draw_title(rng: random.Random, noun: str) -> str:
    texts = _texts()
    adjective, idea = rng.choice(texts["title_adjectives"]), rng.choice(texts["title_ideas"])
    title: str = rng.choice(texts["titles"])
    return title.format(noun=noun, adjective=adjective, idea=idea)


def _make_controls(name: str) -> tuple[Sample, ...]:
    """Return the samples of a control set; wrong options answer other questions of the entry."""
    samples: list[Sample] = []
    for question, answers in _texts()[name].items():
        for subject, answer in answers.items():
            prompt = question.format(subject)
            wrong_answers = [wrong for wrong in answers.values() if wrong != answer]
            options = random.Random(prompt).sample(wrong_answers, WRONG_OPTIONS)
            sample_id = f"{name}/{len(samples)}"
            samples.append(Sample(sample_id, prompt, answer, perturbed_answers=tuple(options)))
    return tuple(samples)
