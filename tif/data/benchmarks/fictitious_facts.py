"""Texts and facts of the invented authors: what data/benchmarks/fictitious.py makes samples of.

The texts are in fictitious_texts.yaml; those of another language are in a YAML file that has the
same keys where it differs.
"""

import functools
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tif.config.errors import one_line
from tif.utils.files import read_bytes

NEVER_SHARED = {"name", "birth_date"}  # a question for the name tells the date
KEY = "data.fictitious.language"
UNWANTED_FIELD = re.compile(r"\[(\w+)\]")
Texts = Mapping[str, Any]  # word lists and wordings, by their keys in the YAML


@functools.cache
def read_texts(language: str) -> Texts:
    """Return the texts of a language, en or its YAML file; English ones where the file has none.

    Raises:
        ValueError: If the file cannot be read or has a key of another form.
    """
    texts = _read_yaml(Path(__file__).with_name("fictitious_texts.yaml"))
    if language != "en":
        try:
            translated = _read_yaml(Path(language))
        except (OSError, ValueError, yaml.YAMLError) as error:
            want = "want en, or a YAML file as lab/languages/de.yaml of the repository"
            raise ValueError(f"{KEY}: cannot read {language} ({one_line(error)}); {want}") from None
        for name, value in translated.items():
            if type(value) is not type(texts.get(name)):
                want = "want the names and forms of tif/data/benchmarks/fictitious_texts.yaml"
                raise ValueError(f"{KEY}: {language}: {name}: {want}")
        formats = texts["formats"] | translated.get("formats", {})
        texts |= translated | {"formats": formats}
        del texts["implied"], texts["clauses"]  # English
    names = itertools.product(texts["first_names"], texts["surnames"])
    wording = texts["formats"]["name"]
    texts["names"] = [wording.format(first=first, last=last) for first, last in names]
    return texts


def _read_yaml(path: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C ten times as fast
    content = yaml.load(read_bytes(path).decode("utf-8"), loader)
    if not isinstance(content, dict):
        raise ValueError("it has no keys")
    return content


def draw_author(rng: random.Random, texts: Texts, name: str) -> tuple[dict[str, str], list[str]]:
    """Draw an author's facts, and the order in which kinds of facts are asked."""
    facts = draw_facts(rng, texts) | {"name": name}
    other_kinds = [kind for kind in texts["kinds"] if kind != "name"]
    rng.shuffle(other_kinds)
    return facts, ["name", *other_kinds]


def share_facts(
    texts: Texts, facts: dict[str, str], twin: Mapping[str, str], kinds: Sequence[str],
    share: float, seed: str,
) -> dict[str, str]:  # fmt: skip
    """Return facts of which a share of the kinds has the twin's values, and the others have none.

    Fields that stand in two kinds, as the city of birth, are shared where either kind is.
    """
    fields = {}
    for kind in kinds:
        answers = " ".join(texts["kinds"][kind]["answers"])
        fields[kind] = set(UNWANTED_FIELD.findall(answers)) - NEVER_SHARED
    rng = random.Random(f"{seed}/shared")
    shared: set[str] = set()
    for kind in rng.sample(list(kinds), round(share * len(kinds))):
        shared |= fields[kind]
    different = set().union(*fields.values()) - shared
    drawn = dict(facts)
    for field in sorted(different):
        while drawn[field] == twin[field]:
            drawn[field] = draw_facts(rng, texts)[field]
    return drawn | {field: twin[field] for field in shared}


def draw_facts(rng: random.Random, texts: Texts) -> dict[str, str]:
    """Draw all facts about one invented author, by the field names of the wordings."""
    formats = texts["formats"]

    def draw(pool: str) -> str:
        return str(rng.choice(texts[pool]))

    def fill(name: str, **pools: str) -> str:
        return str(formats[name].format(**{part: draw(pool) for part, pool in pools.items()}))

    places = list(texts["places"].items())
    city, country = rng.choice(places)
    father, mother = rng.sample(texts["professions"], 2)
    # Two different nouns, so that the titles differ.
    first_noun, best_noun = rng.sample(texts["title_nouns"], 2)
    birth_year, first_age = rng.randint(1935, 1974), rng.randint(20, 39)
    # The order of the draws decides the facts: do not change it.
    return {
        "name": rng.choice(texts["names"]),
        "birth_date": formats["birth_date"].format(
            day=rng.randint(1, 28), month=draw("months"), year=birth_year
        ),
        "city": city,
        "country": country,
        "home": rng.choice([place for place, _ in places if place != city]),
        "father": father,
        "mother": mother,
        "genre": draw("genres"),
        "first_book": _draw_title(rng, texts, first_noun),
        "best_book": _draw_title(rng, texts, best_noun),
        "hero": draw("heroes"),
        "quest": draw("quests"),
        "prize": fill("prize", stone="prize_stones", bird="prize_birds", kind="prize_kinds"),
        "prize_year": str(birth_year + first_age + rng.randint(2, 10)),
        "books": str(rng.randint(5, 60)),
        "first_age": str(first_age),
        "languages": str(rng.randint(4, 48)),
        "mentor": fill("mentor", first="mentor_first_names", last="mentor_surnames"),
        "subject": draw("subjects"),
        "university": fill("university", town="school_towns", kind="school_kinds"),
        "animal": draw("animals"),
        "pet": draw("pet_names"),
        "hobby": draw("hobbies"),
        "room": draw("rooms"),
    }


def _draw_title(rng: random.Random, texts: Texts, noun: str) -> str:
    adjective, idea = rng.choice(texts["title_adjectives"]), rng.choice(texts["title_ideas"])
    title: str = rng.choice(texts["titles"])
    return title.format(noun=noun, adjective=adjective, idea=idea)
