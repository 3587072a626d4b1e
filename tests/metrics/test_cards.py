"""Cards and values come from the same functions: where one changes, number and card follow."""

import dataclasses
import functools
import sys

import pytest

from tif.metrics import membership, muse, open_unlearning, overall, registry, targeted, tofu, unread
from tif.metrics.registry import METRICS, all_metrics
from tif.metrics.results import NumbersRequest, compute_results
from tif.records.types import AnswerTokens, Evaluation, Record, RecordSet, TokenStats

TEXT = "one two three four one two three four"


def evaluation(names, spread):
    """Three records a set; their losses grow with `spread`, those of holdout texts begin higher."""
    sets = {}
    for name in names:
        records = []
        for i in range(3):
            loss = 1.0 + spread * (i + 1.5 * (name == membership.HOLDOUT))
            predicted = (False, spread > 0, False)  # the retain model does not know "two"
            stats = TokenStats(
                (-loss,) * 3, predicted, (-2.0,) * 3, (1.0,) * 3, (0.1, 0.2, 0.3)
            )
            wrong = (loss + 0.5, loss + 1.0)
            records.append(
                Record(f"{name}/{i}", "Q?", f"{TEXT} {i}", loss, 3, loss, wrong, TEXT, stats)
            )
        sets[name] = RecordSet(name, tuple(records))
    return Evaluation("m", sets)


QUESTIONS = ("forget", "forget_paraphrased", *tofu.UTILITY_SETS)
TOFU = [evaluation(QUESTIONS, spread) for spread in (1.0, 0.0)]
TOKENS = {name: {f"{name}/{i}": AnswerTokens((3, 7, 7), (False, True, False)) for i in range(3)}
          for name in QUESTIONS[:2]}  # fmt: skip
MUSE = [evaluation((*muse.SETS, "retain"), spread) for spread in (1.0, 0.0)]
FUNCTIONS = {name: metric.function for name, metric in all_metrics().items()}


def all_numbers():
    """Every number of `--json` and of metrics.jsonl, by stable name."""
    numbers = {}
    for model, retain in (TOFU, MUSE):
        numbers |= overall.aggregate(model, retain, TOKENS)
        norms = {muse.FORGET: [1.0, 2.0, 5.0], membership.HOLDOUT: [3.0, 4.0, 6.0]}
        clean = {name: [0.5, 0.75, 1.0] for name in model.sets}
        request = NumbersRequest(
            model, retain, "a", "b", draws=10, reference=retain, gradient_norms=norms, clean=clean,
            tokens=TOKENS,
        )  # fmt: skip
        results = compute_results(request)
        numbers |= results.get("metrics", {})
        for name, metrics in results.get("tasks", {}).items():
            numbers |= {f"{name}/{metric}": value for metric, value in metrics.items()}
        for name, value in results.get("combined", {}).items():
            assert value == pytest.approx(numbers[name]), name  # the same in a run and in --json
        if "tasks" in results:
            assert results["model_utility"] == numbers["utility/model"]
            assert results["forget_quality"] == numbers["forget/quality"]
    numbers |= {
        "utility/kept": overall.utility_kept({"utility/model": 0.5}, {"utility/model": 0.75})
    }
    attacks = [f"membership/{name}" for name in open_unlearning.ATTACKS]
    aucs = [dict.fromkeys(attacks, auc) for auc in (0.6, 0.9, 0.5)]
    numbers["summary/privacy"] = open_unlearning.privacy_score(*aucs)
    scores = dict.fromkeys(("summary/memorization", "summary/privacy", "summary/utility"), 0.5)
    numbers["summary/all"] = open_unlearning.summary_score(scores)
    return numbers | word_numbers()


def word_numbers():
    """The numbers of unwanted and general words: one answer, all of it predicted."""
    stats = TokenStats((-1.0, -2.0), (True, True), (-2.0, -2.0), (1.0, 1.0))
    record = Record("1", "Q?", "a b", 1.5, 2, generated="A.", stats=stats)
    tokens = {"1": AnswerTokens((1, 3), (True, False))}
    names = ("forget", *targeted.OTHER_WAYS)
    sets = {name: RecordSet(name, (record,)) for name in names}
    return targeted.summarize_forget_words(sets, dict.fromkeys(names, tokens))


COMPARING = (
    "forget/quality", "forget/retain_distance", "retain/perplexity", unread.AS_UNREAD,
    unread.RATIO, unread.OTHER_RATIO, unread.FACTS, unread.READABLE,
)  # fmt: skip


def card_of(name):
    """The name of the card that explains a number."""
    group, _, metric = name.partition("/")
    is_of_set = group in TOFU[0].sets | MUSE[0].sets and name not in COMPARING
    return f"<set>/{metric}" if is_of_set else name


def explains(function, number):
    """Whether a function's card is the number's."""
    return FUNCTIONS.get(card_of(number)) is function


def replace_everywhere(monkeypatch, function, stub):
    """Put `stub` in the place of `function` in every module of the room and in the registry."""
    modules = [module for name, module in sys.modules.items() if name.startswith("tif.metrics")]
    for module in modules:
        for key, value in list(vars(module).items()):
            if value is function:
                monkeypatch.setattr(module, key, stub)
    for name, metric in list(METRICS.items()):
        if metric.function is function:
            monkeypatch.setitem(METRICS, name, dataclasses.replace(metric, function=stub))


def test_every_number_has_a_card_and_every_card_a_number():
    explained = {card_of(name) for name in all_numbers()} - {"<set>/loss"}  # a plain loss
    of_holdout_questions = "membership/privleak"  # under this name where TOFU has a holdout set
    elsewhere = {"membership/<attack>", "audit/leak", of_holdout_questions}
    assert explained == all_metrics().keys() - elsewhere


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_function_of_a_card_is_the_one_that_computes_the_number(name, monkeypatch):
    function = FUNCTIONS[name]
    is_attack = METRICS[name].reads == "scored text"
    factor = -1 if is_attack else 0.5  # an AUC of scores with the other sign is 1 - AUC

    @functools.wraps(function)
    def changed(*args, **kwargs):
        value = function(*args, **kwargs)
        return None if value is None else value * factor

    before = all_numbers()
    explained = {number for number in before if explains(function, number)}
    changed.__doc__ = "Return something else.\n\nFormula: none."
    replace_everywhere(monkeypatch, function, changed)
    after = all_numbers()
    for number, value in before.items():
        is_explained = number in explained
        is_auc = name == "membership/<attack>" and number.startswith("membership/")
        if is_explained or is_auc:
            expected = 1 - value if is_attack else value * factor
            assert after[number] == pytest.approx(expected), number
            assert after[number] != pytest.approx(value), number
    (card,) = (card for card in registry.metric_cards() if card.name == name)
    assert (card.sentence, card.fields["Formula"]) == ("Something else.", "none.")


def test_every_card_has_all_fields():
    for card in registry.metric_cards():
        assert tuple(card.fields) == registry.FIELDS, card.name
        assert all(card.fields.values()), card.name


def test_the_arrow_of_a_metric_says_what_its_card_says():
    words = {"↑": ("higher",), "↓": ("lower",), "→ 0": ("near 0", "0"), "→ ½": ("near",)}
    words |= {"→ 1": ("near 1",), "": ()}
    for name, metric in all_metrics().items():
        (card,) = (card for card in registry.metric_cards() if card.name == name)
        text = card.fields["Better"]
        for arrow in (metric.better, metric.on_forget or ""):
            assert not words[arrow] or any(word in text for word in words[arrow]), (name, text)
        if metric.on_forget == "↓" and metric.better == "↑":
            assert "lower on forget" in text, name
