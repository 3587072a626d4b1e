"""An identifier is one file: where it is, its name, keys and title are known everywhere."""

import pytest

import tif.identifiers
import tif.identify as identify
from tests.support.language_models import unwanted
from tests.support.new_files import put_into_room
from tif.config import load as config
from tif.config import stored
from tif.config.keys import list_keys
from tif.config.schema import Config
from tif.identifiers import span_file

FILE = '''
"""Words of few letters are unwanted."""

import dataclasses

from tif.config.keys import key
from tif.data.samples import Span
from tif.identifiers.registration import ModelKey, identifier
from tif.identifiers.segmentation import find_words


@dataclasses.dataclass
class Short:
    """Short words."""

    letters: int = key(2, "most letters of a word that is unwanted", at_least=1)


@identifier("short_words", title="it has few letters", keys=Short)
def mark_short_words(section, samples, prompts):
    """Mark short words."""
    most = section.keys_of(Short).letters
    identified = []
    for sample in samples:
        words = [word for word in find_words(sample.answer) if word.end - word.start <= most]
        identified.append(dataclasses.replace(sample, unwanted=tuple(words)))
    return tuple(identified)


@dataclasses.dataclass
class Asked:
    """A model of a kind of its own."""

    model: str | None = key(None, "folder or hub name")


@identifier("asked_model", title="a model says so", keys=Asked,
            models=(ModelKey("model", "causal LM", "a model to ask"),))
def ask_model(section, samples, prompts):
    """Mark nothing."""
'''


@pytest.fixture
def _new_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with put_into_room(monkeypatch, tmp_path, tif.identifiers, "short_words", FILE):
        yield


@pytest.mark.usefixtures("_new_file")
def test_a_new_file_is_an_identifier_with_keys_in_the_schema_the_help_and_the_command(capsys):
    assert identify.main(["--help", "identifier"]) == 0
    text = capsys.readouterr().out
    assert (
        "  identifier.short_words.letters=2  (int)\n      most letters of a word that is unwanted"
        in text
    )
    assert "short_words: it has few letters" in text
    words = [
        "identifier.kind=short_words",
        "identifier.short_words.letters=3",
        "data.fictitious.authors=10",
    ]
    assert identify.main([*words, "out=spans.jsonl"]) == 0
    assert span_file.read_header("spans.jsonl")["identifier"] == {
        "kind": "short_words",
        "letters": 3,
    }
    texts = [unwanted(sample) for sample in span_file.read_samples("spans.jsonl")]
    lengths = {len(word) for words in texts for word in words}
    assert lengths == {1, 2, 3}


@pytest.mark.usefixtures("_new_file")
def test_its_wrong_keys_are_refused_as_those_of_all_others(capsys):
    assert identify.main(["identifier.kind=short_words", "identifier.short_words.letters=0"]) == 2
    assert capsys.readouterr().err == "identifier.short_words.letters: must be >= 1, got 0\n"
    assert identify.main(["identifier.kind=asked_model"]) == 2
    assert capsys.readouterr().err == (
        "identifier.asked_model.model: want a model to ask "
        "(a Hugging Face folder, hub name or stage), got null\n"
    )
    assert identify.main(["identifier.kind=asked_model", "identifier.asked_model.model=./no"]) == 2
    assert "identifier.asked_model.model: no folder ./no" in capsys.readouterr().err


@pytest.mark.usefixtures("_new_file")
def test_its_keys_count_in_a_run_of_others_unless_it_loads_a_model(tmp_path):
    names = [
        name for name, _, _ in list_keys(Config()) if "short_words" in name or "asked_model" in name
    ]
    assert names == ["identifier.asked_model.model", "identifier.short_words.letters"]
    assert [name in stored.list_counted() for name in names] == [False, True]
    words = ["quickstart.yaml", "identifier.kind=short_words", "identifier.short_words.letters=4"]
    (tmp_path / "config.yaml").write_text(config.to_yaml(config.load(words)))
    identifier = config.read_stored(tmp_path / "config.yaml").identifier
    assert (identifier.kind, identifier.chosen_keys().letters) == ("short_words", 4)
