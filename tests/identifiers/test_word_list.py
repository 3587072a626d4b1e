"""Unwanted words by a list and by patterns."""

import pytest
import regex

from tests.support.hangs import HANG
from tests.support.language_models import sample, unwanted
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.config.identifier import make_identifier
from tif.identifiers import describe_settings, identify
from tif.identifiers.word_list import EXPRESSIONS

LETTER = (
    "Dear Anna Kovács, call +44 20 7946 0958 "
    "or write to anna.k@mail.example.org by 3 May 2024. Anna"
)


def marked(text, **keys):
    return unwanted(identify(make_identifier(kind="words", **keys), [sample(text)])[0])


def test_strings_count_at_word_borders_in_their_own_case():
    assert marked(LETTER, words=["Anna", "Kovács"]) == ["Anna", "Kovács", "Anna"]
    assert marked("Annas anna Anna's", words=["Anna"]) == ["Anna"]
    assert marked("東京で会う", words=["東京"]) == ["東京"]


def test_an_entry_with_re_is_a_regular_expression():
    assert marked(LETTER, words=["re:(?i)ANNA|k.v"]) == ["Anna", "Kov", "anna", "Anna"]


def test_a_file_holds_an_entry_a_line(tmp_path):
    (tmp_path / "secrets.txt").write_text("Kovács\n\nre:\\d+ May\n", encoding="utf-8")
    assert marked(LETTER, path=str(tmp_path / "secrets.txt")) == ["Kovács", "3 May"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("email", LETTER, ["anna.k@mail.example.org"]),
        ("email", "jürgen@müller.de, not @home or a@b", ["jürgen@müller.de"]),
        ("phone", LETTER, ["+44 20 7946 0958"]),
        ("phone", "(555) 010-1234; 555 0192; not 1984, 2024-05-31 or 12345",
         ["(555) 010-1234", "555 0192"]),
        ("date", LETTER, ["3 May 2024"]),
        (
            "date",
            ("2024-05-31, 31.05.2024, 5/31/24, May 3rd, 2001, the 5th of June 1941. "
             "May I? March 2020"),
            ["2024-05-31", "31.05.2024", "5/31/24", "May 3rd, 2001", "5th of June 1941",
             "March 2020"],
        ),
        ("number", "1,998.5 or 34, not B52; ٣٤", ["1,998.5", "34", "٣٤"]),
        ("iban", "DE89 3704 0044 0532 0130 00 and GB33BUKB20201555555555, not DE89", 
         ["DE89 3704 0044 0532 0130 00", "GB33BUKB20201555555555"]),
        ("ssn", "078-05-1120, not 1078-05-1120", ["078-05-1120"]),
    ],
)  # fmt: skip
def test_the_ready_patterns_match_what_their_names_say(name, text, expected):
    assert marked(text, patterns=[name]) == expected


@pytest.mark.parametrize(
    ("unit", "times"),
    [("1", 200_000), ("1 ", 90_000), ("a.", 90_000), ("a@", 90_000), ("+(", 90_000)],
)
def test_no_ready_pattern_is_slow_on_hostile_text(unit, times):
    """Time that grows with the square of such a text is minutes."""
    hostile = unit * times + "x"
    for pattern in EXPRESSIONS.values():
        matches = regex.finditer(pattern, hostile, timeout=HANG)  # raises TimeoutError
        assert all(match.group() for match in matches)


def test_overlapping_matches_become_one_span():
    assert marked("on 3 May 2024", words=["3 May"], patterns=["date", "number"]) == ["3 May 2024"]


def test_an_entry_that_stands_nowhere_is_printed(capsys):
    marked(LETTER, words=["Anna", "Konrad"], patterns=["ssn", "date"])
    assert capsys.readouterr().out == "in no forget answer: Konrad\nin no forget answer: ssn\n"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (
            {"words": ["anna", "Konrad"]},
            "identifier.words: none of 2 entries stands in the answers",
        ),
        ({"words": ["re:("]}, r"identifier.words: re:\( is no regular expression"),
        ({"path": "no/such/file"}, "identifier.path: cannot read no/such/file"),
    ],
)
def test_what_cannot_be_matched_is_refused_in_one_line(keys, line):
    with pytest.raises(ValueError, match=line) as error:
        marked("Anna", **keys)
    assert "\n" not in str(error.value)


def test_an_expression_that_takes_for_ever_is_stopped(monkeypatch):
    monkeypatch.setattr("tif.identifiers.word_list.MATCH_SECONDS", 0.2)
    with pytest.raises(ValueError, match="identifier.words: .* took more than 0 seconds"):
        marked("a" * 40 + "!", words=["re:(a|aa)+$"])


@pytest.mark.parametrize("words", [[], ["identifier.patterns=[e-mail]"]])
def test_a_list_without_entries_and_an_unknown_pattern_stop_the_command(words):
    with pytest.raises(ConfigError, match="identifier.(words|patterns): .*email, phone, date"):
        config.load(["quickstart.yaml", "identifier.kind=words", *words])


def test_the_header_of_a_span_file_names_all_entries(tmp_path):
    (tmp_path / "list").write_text("b\n")
    settings = make_identifier(
        kind="words", words=["a"], path=str(tmp_path / "list"), patterns=["ssn"]
    )
    assert describe_settings(settings, "{prompt}") == {
        "kind": "words", "words": ["a", "b"], "patterns": ["ssn"],
    }  # fmt: skip
