import pytest

from tests.support.language_models import sample
from tif.config.data import Fictitious
from tif.config.identifier import make_identifier
from tif.data.benchmarks.fictitious import generate_fictitious
from tif.data.samples import Sample, Span
from tif.identifiers import identify, span_file
from tif.identifiers.controls import RandomWords
from tif.identifiers.span_comparison import compare_files, label_units, make_token_units

#         0123456789012345678901234
ANSWER = "Mira Dell, born in Oslo."
WORDS = {"Mira": (0, 4), "Dell": (5, 9), "born": (11, 15), "in": (16, 18), "Oslo": (19, 23)}


def file(path, spans_of, kind="random"):
    """A span file; `spans_of`: sample id to the unwanted words of ANSWER, or to spans."""
    samples = [
        Sample(
            i, "Who?", ANSWER, tuple(Span(*(WORDS[w] if isinstance(w, str) else w)) for w in words)
        )
        for i, words in spans_of.items()
    ]
    span_file.write_spans(path, samples, {"kind": kind})
    return path


def test_the_numbers_are_those_worked_out_by_hand(tmp_path):
    """Gold: Mira Dell, Oslo | nothing. Ours: Mira, born | in.

    One word is in both, 3 are ours, 3 are gold, 5 of 10 are in either.
    """
    gold = file(tmp_path / "gold.jsonl", {"a": [(0, 9), "Oslo"], "b": []}, "gold")
    ours = file(tmp_path / "ours.jsonl", {"b": ["in"], "a": ["Mira", "born"]})
    comparison = compare_files([ours, gold])
    assert (comparison["samples"], comparison["units"], comparison["gold"]) == (2, 10, "gold")
    assert comparison["files"]["ours"] == {
        "uw_share": 0.3,
        "precision": 1 / 3,
        "recall": 1 / 3,
        "f1": 1 / 3,
    }
    assert comparison["files"]["gold"] == {
        "uw_share": 0.3,
        "precision": 1.0,
        "recall": 1.0,
        "f1": 1.0,
    }
    assert comparison["jaccard"] == {
        "ours": {"ours": 1.0, "gold": 0.2},
        "gold": {"ours": 0.2, "gold": 1.0},
    }


def test_precision_recall_and_f1_differ_where_they_should(tmp_path):
    """Two words unwanted, three called so, one of them right."""
    gold = file(tmp_path / "gold.jsonl", {"a": ["Mira", "Oslo"]}, "gold")
    ours = file(tmp_path / "ours.jsonl", {"a": ["Mira", "born", "in"]})
    assert compare_files([gold, ours])["files"]["ours"] == {
        "uw_share": 0.6,
        "precision": 1 / 3,
        "recall": 0.5,
        "f1": 0.4,
    }


def test_without_a_gold_file_there_is_no_f1(tmp_path):
    comparison = compare_files([file(tmp_path / f"{n}.jsonl", {"a": ["Mira"] * n}) for n in (0, 1)])
    assert comparison["gold"] is None
    assert comparison["files"] == {"0": {"uw_share": 0.0}, "1": {"uw_share": 0.2}}
    assert comparison["jaccard"] == {"0": {"0": 1.0, "1": 0.0}, "1": {"0": 0.0, "1": 1.0}}


def test_nothing_called_has_no_precision(tmp_path):
    gold = file(tmp_path / "gold.jsonl", {"a": ["Mira"]}, "gold")
    none = file(tmp_path / "none.jsonl", {"a": []})
    assert compare_files([gold, none])["files"]["none"] == {
        "uw_share": 0.0,
        "precision": None,
        "recall": 0.0,
        "f1": 0.0,
    }
    empty = file(tmp_path / "empty.jsonl", {"a": []}, "gold")
    assert compare_files([empty, none])["files"]["none"]["f1"] is None


def test_a_word_counts_where_all_of_its_characters_are_unwanted():
    def of(*spans):
        return label_units(Sample("a", "", ANSWER, tuple(Span(*s) for s in spans)))

    assert of((0, 9)) == [True, True, False, False, False]
    assert of((0, 8)) == [True, False, False, False, False]
    assert of((0, 2), (2, 4), (18, 24)) == [True, False, False, False, True]
    assert of((0, 24)) == [True] * 5
    assert of() == [False] * 5


def test_tokens_count_instead_of_words(tokenizer):
    units = make_token_units(tokenizer)(ANSWER)
    ends = tokenizer(ANSWER, return_offsets_mapping=True)["offset_mapping"]
    assert len(units) == len(ends)
    assert all(not ANSWER[u.start].isspace() for u in units)
    labels = label_units(Sample("a", "", ANSWER, (Span(19, 23),)), lambda text: units)
    assert [ANSWER[u.start : u.end] for u, x in zip(units, labels, strict=True) if x][0][0] == "O"
    assert (
        "".join(ANSWER[u.start : u.end] for u, x in zip(units, labels, strict=True) if x) == "Oslo"
    )


def test_only_shared_samples_count_and_must_have_the_same_text(tmp_path):
    first = file(tmp_path / "one.jsonl", {"a": ["Mira"], "b": []})
    second = file(tmp_path / "two.jsonl", {"b": ["Oslo"], "c": []})
    assert compare_files([first, second])["samples"] == 1
    other = file(tmp_path / "other.jsonl", {"z": []})
    with pytest.raises(ValueError, match="other.jsonl: no sample in common with"):
        compare_files([first, other])
    span_file.write_spans(tmp_path / "text.jsonl", [Sample("a", "Who?", "Another.", ())], {})
    with pytest.raises(ValueError, match="sample a has another answer"):
        compare_files([first, tmp_path / "text.jsonl"])


def test_files_of_one_name_are_told_apart(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    paths = [file(tmp_path / f / "spans.jsonl", {"a": []}) for f in ("x", "y")]
    assert list(compare_files(paths)["files"]) == [str(p) for p in paths]
    assert len(compare_files([paths[0], paths[0]])["files"]) == 2


def test_gold_scores_one_and_random_what_chance_gives(tmp_path):
    """Chance: recall = share, precision = share of gold, F1 = 2 * share * gold / (share + gold)."""
    samples, paths = generate_fictitious(Fictitious(40, 10, 0.5)).forget, []
    for kind, share in (("gold", 0), ("all", 0), ("none", 0), ("random", 0.3), ("random", 0.6)):
        identifier = make_identifier(kind=kind, random=RandomWords(share))
        paths.append(tmp_path / f"{kind}{share}.jsonl")
        span_file.write_spans(paths[-1], identify(identifier, samples), {"kind": kind})
    files = compare_files(paths)["files"]
    gold = files["gold0"]["uw_share"]
    assert files["gold0"] == {"uw_share": gold, "precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert files["all0"]["f1"] == pytest.approx(2 * gold / (1 + gold))
    assert files["none0"]["f1"] == 0.0
    for share in (0.3, 0.6):
        actual = files[f"random{share}"]
        assert actual["recall"] == pytest.approx(share, abs=0.06)
        assert actual["precision"] == pytest.approx(gold, abs=0.03)
        assert actual["f1"] == pytest.approx(2 * share * gold / (share + gold), abs=0.03)


def test_a_file_of_its_own_samples_is_read_back(tmp_path):
    written = [Sample("a", "Who?", ANSWER, (Span(0, 9),)), sample("中\u2028文", name="b")]
    written[1] = Sample("b", "", "中\u2028文", ())
    span_file.write_spans(tmp_path / "f.jsonl", written, {})
    assert span_file.read_samples(tmp_path / "f.jsonl") == tuple(written)
    text = (tmp_path / "f.jsonl").read_text().replace('"answer": "中\\u2028文"', '"answer": " "')
    (tmp_path / "f.jsonl").write_text(text.replace('"answer": "中\u2028文"', '"answer": " "'))
    with pytest.raises(ValueError, match="line 3: sample b: the answer is empty"):
        span_file.read_samples(tmp_path / "f.jsonl")
