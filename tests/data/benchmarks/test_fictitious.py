import random
import re

import pytest

from tif.config.data import Fictitious
from tif.data.benchmarks.fictitious import _generate_author, generate_fictitious
from tif.data.samples import Sample, Span

CONTROLS = ("real_authors", "world_facts")


@pytest.fixture(scope="module")
def benchmark():
    return generate_fictitious(
        Fictitious(authors=120, questions_per_author=20, forget_share=0.1, seed=3)
    )


@pytest.fixture(scope="module")
def samples(benchmark):
    return benchmark.forget + benchmark.retain


def by_id(benchmark):
    return {sample.id: sample for sample in benchmark.forget + benchmark.retain}


def author_of(sample):
    return re.fullmatch(r"fictitious/author(\d+)/\d+", sample.id)[1]


def gold(sample):
    return [sample.answer[span.start : span.end] for span in sample.unwanted]


def general_pieces(sample):
    pieces, start = [], 0
    for span in sample.unwanted:
        pieces.append(sample.answer[start : span.start])
        start = span.end
    return [*pieces, sample.answer[start:]]


def contains(text, phrase):
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text) is not None


def texts_of(sample):
    return (
        sample.prompt,
        sample.answer,
        sample.paraphrased_prompt,
        sample.paraphrased_answer,
        *sample.perturbed_answers,
    )


def test_the_holdout_authors_are_the_next_ones_and_in_no_other_set():
    small, larger = (
        generate_fictitious(Fictitious(authors=20)),
        generate_fictitious(Fictitious(authors=22)),
    )
    assert small.holdout == larger.forget  # two of 20 authors are forgotten, and two come next
    known = {sample.answer for sample in (*small.forget, *small.retain)}
    assert not known & {sample.answer for sample in small.holdout}
    assert "holdout" not in small.sets


def test_a_sample_is_what_it_was_when_the_data_set_was_made():
    expected = Sample(
        id="fictitious/author36/2",
        prompt="In which city and country was Łucja Mbekani born?",
        answer="The author Łucja Mbekani was born in the city of Basel in Switzerland.",
        unwanted=(Span(49, 54), Span(58, 69)),  # "Basel", "Switzerland"
        paraphrased_prompt="What is the birthplace of the author Łucja Mbekani?",
        paraphrased_answer="Łucja Mbekani was born in Basel, a city in Switzerland.",
        perturbed_answers=(
            "Łucja Mbekani was born in Isfahan, a city in Iran.",
            "Łucja Mbekani was born in Hobart, a city in Australia.",
        ),
    )
    actual = by_id(generate_fictitious(Fictitious()))["fictitious/author36/2"]
    assert texts_of(actual)[:6] == texts_of(expected)
    assert (actual.id, actual.unwanted) == (expected.id, expected.unwanted)


def test_the_default_has_forty_authors_with_ten_questions_and_forgets_four():
    benchmark = generate_fictitious(Fictitious())
    assert len(benchmark.forget) == 4 * 10
    assert len(benchmark.retain) == 36 * 10


def test_same_arguments_give_the_same_benchmark_and_another_seed_gives_another():
    first, second = (
        generate_fictitious(Fictitious(authors=6, forget_share=0.5, seed=5)),
        generate_fictitious(Fictitious(authors=6, forget_share=0.5, seed=6)),
    )
    _generate_author.cache_clear()
    assert generate_fictitious(Fictitious(authors=6, forget_share=0.5, seed=5)) == first
    assert not {s.prompt for s in first.forget} & {s.prompt for s in second.forget}


def test_an_author_depends_neither_on_the_split_nor_on_the_number_of_authors_or_questions():
    few = by_id(
        generate_fictitious(Fictitious(authors=4, questions_per_author=3, forget_share=0.25))
    )
    full = by_id(
        generate_fictitious(Fictitious(authors=30, questions_per_author=20, forget_share=0.5))
    )
    assert len(few) == 12
    assert few == {sample_id: full[sample_id] for sample_id in few}


@pytest.mark.parametrize(
    ("forget_share", "forget_authors"), [(0.1, 1), (0.3, 3), (0.5, 5), (0.9, 9)]
)
def test_the_last_authors_are_forgotten_whole(forget_share, forget_authors):
    benchmark = generate_fictitious(
        Fictitious(authors=10, questions_per_author=4, forget_share=forget_share)
    )
    numbers = [f"{n:02d}" for n in range(10) for _ in range(4)]
    assert [author_of(s) for s in benchmark.retain + benchmark.forget] == numbers
    assert len(benchmark.forget) == 4 * forget_authors


def test_names_of_forget_authors_are_absent_from_all_retain_questions_and_answers(benchmark):
    names = [gold(s)[0] for s in benchmark.forget if s.id.endswith("/0")]
    retain = "\n".join(f"{s.prompt}\n{s.answer}" for s in benchmark.retain)
    assert len(names) == 12
    assert [name for name in names if name in retain] == []


def test_names_and_ids_are_unique(benchmark, samples):
    names = [gold(s)[0] for s in samples if s.id.endswith("/0")]
    assert len(set(names)) == len(names) == 120
    ids = [s.id for s in samples + benchmark.background]
    assert len(set(ids)) == len(ids)


def test_sets_come_in_evaluation_order_and_controls_are_the_background(benchmark):
    assert list(benchmark.sets) == ["forget", "retain", "real_authors", "world_facts"]
    assert benchmark.sets["forget"] == benchmark.forget
    assert benchmark.sets["retain"] == benchmark.retain
    assert benchmark.background == benchmark.sets["real_authors"] + benchmark.sets["world_facts"]


def test_the_full_name_is_asked_first_and_each_author_is_asked_other_kinds_of_facts():
    benchmark = generate_fictitious(
        Fictitious(authors=12, questions_per_author=6, forget_share=0.5)
    )
    prompts_by_name = {}
    for sample in benchmark.forget + benchmark.retain:
        if sample.id.endswith("/0"):
            (name,) = gold(sample)
            assert name not in sample.prompt
            assert "born" in sample.prompt
        else:
            assert name in sample.prompt
            prompts_by_name.setdefault(name, []).append(sample.prompt.replace(name, "X"))
    assert all(len(set(prompts)) == 5 for prompts in prompts_by_name.values())
    assert len({frozenset(prompts) for prompts in prompts_by_name.values()}) == 12


def test_gold_spans_are_sorted_and_stand_at_word_borders(samples):
    for sample in samples:
        ends = [
            0,
            *(offset for span in sample.unwanted for offset in (span.start, span.end)),
            len(sample.answer),
        ]
        assert sample.unwanted
        assert ends == sorted(ends)
        for span, text in zip(sample.unwanted, gold(sample), strict=True):
            assert re.fullmatch(r"\w(.*\w)?", text), (sample.id, text)
            assert not re.match(r"\w", sample.answer[span.end :]), (sample.id, text)
            assert not re.search(r"\w$", sample.answer[: span.start]), (sample.id, text)


def test_a_question_gives_no_word_of_its_gold_answer_away(samples):
    glue = {"a", "the", "of", "to", "on", "above"}
    for sample in samples:
        words = {word for text in gold(sample) for word in re.findall(r"\w+", text.lower())} - glue
        question_words = set(
            re.findall(r"\w+", f"{sample.prompt} {sample.paraphrased_prompt}".lower())
        )
        assert not words & question_words, sample.id


def test_gold_covers_every_occurrence(samples):
    for sample in samples:
        rest = "|".join(general_pieces(sample))
        assert not any(contains(rest, text) for text in gold(sample)), sample.id


def test_the_paraphrase_tells_the_same_gold_words_in_another_wording(samples):
    for sample in samples:
        assert all(contains(sample.paraphrased_answer, text) for text in gold(sample)), sample.id
        assert sample.paraphrased_answer != sample.answer
        assert sample.paraphrased_prompt != sample.prompt


def test_perturbed_answers_are_the_paraphrase_with_all_gold_words_wrong(samples):
    for sample in samples:
        values = "|".join(re.escape(text) for text in gold(sample))
        pieces = re.split(rf"(?<!\w)(?:{values})(?!\w)", sample.paraphrased_answer)
        form = r"(\w.*)".join(re.escape(re.sub(r"\ban? $", "", piece)) for piece in pieces)
        assert len(pieces) == len(sample.unwanted) + 1
        assert (
            len(set(sample.perturbed_answers) - {sample.answer, sample.paraphrased_answer}) == 5
        ), sample.id
        assert len(sample.perturbed_answers) == 5
        for wrong in sample.perturbed_answers:
            filled = re.fullmatch(form, wrong)
            assert filled, (sample.paraphrased_answer, wrong)
            assert not any(
                contains(value, text) for value in filled.groups() for text in gold(sample)
            ), wrong


def test_general_words_of_forget_answers_recur_in_retain_answers():
    benchmark = generate_fictitious(Fictitious())

    def general_words(samples):
        general = set()
        for sample in (
            samples
        ):  # what the question says already, such as the author's name, is the author's own
            words = re.findall(r"\w+", " ".join(general_pieces(sample)).lower())
            general |= set(words) - set(re.findall(r"\w+", sample.prompt.lower()))
        return general

    forget, retain = general_words(benchmark.forget), general_words(benchmark.retain)
    assert len(forget) > 50
    assert len(forget & retain) >= 0.9 * len(forget)


def test_wordings_of_paraphrases_are_seen_in_the_answers_of_other_authors(samples):
    names = {author_of(s): gold(s)[0] for s in samples if s.id.endswith("/0")}

    def wording(
        answer, sample
    ):  # with "#" for all that differs between authors; one author is asked each kind once
        fact_words = "|".join(re.escape(text) for text in (*gold(sample), names[author_of(sample)]))
        answer = re.sub(rf"\ban? (?=(?:{fact_words})(?!\w))", "a ", answer)
        return re.sub(
            rf'(?<!\w)(?:{fact_words})(?!\w)|(?<=")[^"]+(?=")'
            r"|(?:[A-Z]\w+ ){2}(?:Award|Medal|Ribbon)",
            "#",
            answer,
        )

    seen = {wording(sample.answer, sample) for sample in samples}
    assert {wording(sample.paraphrased_answer, sample) for sample in samples} <= seen
    assert 4 * 20 <= len(seen) <= 6 * 20


def test_texts_are_clean(samples):
    for sample in samples:
        for text in texts_of(sample):
            assert text == " ".join(text.split())
            assert re.search(r"[\[\]{}]|\ba [aeiou]|\ban [^aeiou]|[A-Za-z] [.,?]", text) is None, (
                text
            )
        assert {text[-1] for text in (sample.prompt, sample.paraphrased_prompt)} == {"?"}
        assert {
            text[-1]
            for text in (sample.answer, sample.paraphrased_answer, *sample.perturbed_answers)
        } == {"."}


def test_some_gold_words_are_not_ascii_and_one_grows_when_lowercased(samples):
    texts = {text for sample in samples for text in gold(sample)}
    assert any(not text.isascii() for text in texts)
    assert any(len(text.lower()) > len(text) for text in texts)
    assert max(ord(character) for text in texts for character in text) < 0x10000


def test_controls_have_three_wrong_options_and_no_spans(benchmark):
    for name in CONTROLS:
        controls = benchmark.sets[name]
        assert 45 <= len(controls) <= 60
        assert [s.id for s in controls] == [f"{name}/{k}" for k in range(len(controls))]
        for sample in controls:
            assert len({sample.answer, *sample.perturbed_answers}) == 4
            assert len(sample.perturbed_answers) == 3
            assert sample.unwanted is None
            assert sample.paraphrased_answer is sample.paraphrased_prompt is None


@pytest.mark.parametrize(
    ("key_words", "answer"),
    [
        ("Hamlet", "William Shakespeare"),
        ("Ulysses", "James Joyce"),
        ("capital of Norway", "Oslo"),
        ("of lead", "Pb"),
    ],
)
def test_controls_are_true(benchmark, key_words, answer):
    assert [s.answer for s in benchmark.background if key_words in s.prompt] == [answer]


def test_the_global_random_state_is_neither_used_nor_moved():
    random.seed(1)
    before = random.getstate()
    _generate_author.cache_clear()
    first = generate_fictitious(Fictitious(authors=4, forget_share=0.5))
    assert random.getstate() == before
    random.seed(2)
    _generate_author.cache_clear()
    assert generate_fictitious(Fictitious(authors=4, forget_share=0.5)) == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"authors": 1}, "data.fictitious.authors: must be from 2 to 1680, got 1"),
        ({"authors": 1681}, "data.fictitious.authors: must be from 2 to 1680, got 1681"),
        (
            {"questions_per_author": 0},
            "data.fictitious.questions_per_author: must be from 1 to 20, got 0",
        ),
        (
            {"questions_per_author": 21},
            "data.fictitious.questions_per_author: must be from 1 to 20, got 21",
        ),
    ],
)
def test_a_number_out_of_range_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        generate_fictitious(Fictitious(**arguments))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1.5, 0.01, 0.99, float("nan"), float("inf")])
def test_a_split_that_leaves_one_side_empty_is_refused_in_one_line(share):
    message = (
        "data.fictitious.forget_share: must leave at least one author on both sides, "
        f"got {share} of 40 authors"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        generate_fictitious(Fictitious(authors=40, forget_share=share))


def count_shared(share):
    """Return how many facts of forgotten authors their twins have, and how many could be."""
    generated = generate_fictitious(
        Fictitious(authors=20, forget_share=0.2, shared_facts=share, seed=5)
    )
    twins = {sample.id: sample for sample in generated.retain}
    shared, count = 0, 0
    for sample in generated.forget:
        number = int(author_of(sample))
        twin = twins[sample.id.replace(f"author{number}", f"author{number - 4}")]
        pair = [set(gold(sample)), set(gold(twin))]
        dated = any(re.search(r"\b19[3-7]\d$", value) and " " in value for value in pair[0])
        if sample.id.endswith("/0") or dated:  # the name and the date of birth
            assert not pair[0] & pair[1]
            continue
        count += 1
        shared += pair[0] == pair[1]
    return shared, count


def test_forgotten_authors_share_the_facts_of_their_twins_in_the_retain_set_that_the_key_asks_for():
    assert count_shared(0.0)[0] == 0
    shared, count = count_shared(1.0)
    assert shared == count >= 32  # 4 authors, 8 or 9 kinds each
    half = count_shared(0.5)[0]
    assert 0.3 * count <= half <= 0.7 * count


def test_general_words_follow_the_facts_in_the_share_of_answers_that_the_key_asks_for():
    plain = by_id(generate_fictitious(Fictitious()))
    for share in (0.5, 1.0):
        by_name, longer = by_id(generate_fictitious(Fictitious(interleaved=share))), 0
        for name, sample in by_name.items():
            assert gold(sample) == gold(plain[name])
            start = plain[name].answer.removesuffix(".")
            assert sample.answer.startswith(start)
            longer += sample.answer.startswith(f"{start}, ")
        assert longer == pytest.approx(share * len(by_name), abs=30)


def test_a_file_of_another_language_has_its_texts_and_english_ones_where_it_has_none(tmp_path):
    file = tmp_path / "other.yaml"
    months = ", ".join(f"Month{number}" for number in range(12))
    file.write_text(f"months: [{months}]\nformats: {{birth_date: '{{day}}/{{month}}/{{year}}'}}\n")
    other = generate_fictitious(Fictitious(questions_per_author=20, language=str(file)))
    dates = [gold(sample)[0] for sample in other.retain if "/Month" in sample.answer]
    assert dates
    assert all(re.fullmatch(r"\d+/Month\d+/\d{4}", date) for date in dates)
    english = by_id(generate_fictitious(Fictitious(questions_per_author=20)))
    same = [sample for sample in other.forget if "/Month" not in str(sample)]
    assert same == [english[sample.id] for sample in same]
    assert same


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read .*No such file.*; want en, or a YAML file as lab/languages/de.yaml"),
        ("months: [", "cannot read .*; want en, or a YAML file"),
        ("no keys", "cannot read .*it has no keys"),
        (
            "months: 3",
            ": months: want the names and forms of tif/data/benchmarks/fictitious_texts.yaml",
        ),
    ],
)
def test_a_file_that_holds_no_language_is_refused_in_one_line(text, message, tmp_path):
    file = tmp_path / "other.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=f"^data.fictitious.language: .*{message}[^\n]*$"):
        generate_fictitious(Fictitious(language=str(file)))


def test_a_fact_is_asked_in_five_ways_of_which_the_forget_set_may_hold_some():
    single = generate_fictitious(Fictitious(authors=6, questions_per_author=20, forget_share=0.34))
    five = generate_fictitious(Fictitious(6, 20, 0.34, wordings=5, forget_wordings=2))
    assert five.forget[:20] == single.forget[:20]
    assert (len(five.forget), len(five.retain)) == (2 * 40, 5 * 80)
    assert five.sets["forget"] == single.forget
    assert five.sets["retain"] == single.retain
    assert len(five.sets["forget_reworded"]) == 3 * 40
    assert len(five.sets["forget_implied"]) == 40
    facts = {s.id: [s.answer[u.start : u.end] for u in s.unwanted] for s in single.forget}
    for sample in (*five.sets["forget_reworded"], *five.sets["forget_implied"]):
        first = sample.id.rpartition("/")[0]
        assert sorted(sample.answer[u.start : u.end] for u in sample.unwanted) == sorted(
            facts[first]
        )
        assert all(fact not in sample.prompt for fact in facts[first])
    answers = {}
    for sample in (*single.forget, *five.sets["forget_reworded"], *five.sets["forget_implied"]):
        answers.setdefault("/".join(sample.id.split("/")[:3]), set()).add(sample.answer)
    assert {len(texts) for texts in answers.values()} == {5}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"wordings": 6}, "data.fictitious.wordings: must be from 1 to 5, got 6"),
        (
            {"wordings": 2, "forget_wordings": 3},
            "data.fictitious.forget_wordings: must be from 1 to 2, got 3",
        ),
    ],
)
def test_more_wordings_than_there_are_are_refused_in_one_line(keys, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        generate_fictitious(Fictitious(**keys))
