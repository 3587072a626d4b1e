"""The documentation's table of identifiers in small: every kind through the command."""

import json

import pytest

import tif.identify as identify
from tests.support import llm_server_stub
from tif.config.data import Fictitious
from tif.data.benchmarks.fictitious import generate_fictitious
from tif.data.benchmarks.tofu import read_tofu
from tif.identifiers import precomputed, span_comparison, span_file
from tif.identifiers.segmentation import find_words

DATA = [
    "data.fictitious.authors=6",
    "data.fictitious.questions_per_author=4",
    "data.fictitious.forget_share=0.34",
]


@pytest.fixture(scope="module")
def table(tmp_path_factory, trained_bert, llama, other_llama):
    """Rows of `tif.identify compare --json`, and the files behind them."""
    folder = tmp_path_factory.mktemp("table")
    models = {
        "masked_lm": {"masked_lm.model": trained_bert},
        "causal_lm": {"causal_lm.model": llama},
        "contrastive": {
            "contrastive.model": llama,
            "contrastive.base": other_llama,
            "contrastive.margin": 0.5,
        },
    }
    rows = {"gold": {}, "all": {}, "none": {}, "random": {"random.share": 0.4}} | models
    files = {kind: folder / f"{kind}.jsonl" for kind in (*rows, "generative")}
    common = [*DATA, f"run.folder={folder}/runs", "identifier.device=cpu"]
    with llm_server_stub.serving() as stub:
        rows["generative"] = {
            "generative.base_url": stub.url, "generative.model": "m",
            "generative.cache": folder / "answers",
        }  # fmt: skip
        for kind, keys in rows.items():
            keys_as_words = [f"identifier.{name}={value}" for name, value in keys.items()]
            assert (
                identify.main(
                    [*common, f"identifier.kind={kind}", *keys_as_words, f"out={files[kind]}"]
                )
                == 0
            )
    return span_comparison.compare_files(list(files.values())), files


def counted(path):
    """Per word of all answers, in order: whether every character of it is in a span."""
    flags = []
    for s in span_file.read_samples(path):
        inside = {i for span in s.unwanted for i in range(span.start, span.end)}
        flags += [inside >= set(range(w.start, w.end)) for w in find_words(s.answer)]
    return flags


def test_every_identifier_has_its_row_and_the_numbers_are_a_plain_count(table):
    comparison, files = table
    gold = counted(files["gold"])
    assert comparison["gold"] == "gold"
    assert set(comparison["files"]) == set(files)
    for kind, path in files.items():
        ours = counted(path)
        right, either = (sum(map(f, zip(ours, gold, strict=True))) for f in (all, any))
        row = comparison["files"][kind]
        assert row["f1"] == pytest.approx(2 * right / (sum(ours) + sum(gold)))
        assert row["uw_share"] == pytest.approx(sum(ours) / len(gold))
        assert comparison["jaccard"][kind]["gold"] == pytest.approx(right / either)


def test_gold_is_right_and_the_controls_are_what_they_must_be(table):
    rows = table[0]["files"]
    share = rows["gold"]["uw_share"]
    assert rows["gold"]["f1"] == 1.0
    assert rows["all"]["f1"] == pytest.approx(2 * share / (1 + share))
    assert rows["none"]["f1"] == 0.0
    for kind in ("masked_lm", "causal_lm", "contrastive", "generative", "random"):
        assert 0 < rows[kind]["uw_share"] < 1, kind


def test_capitals_and_numbers_find_more_of_the_gold_than_chance_does(table):
    rows, gold = table[0]["files"], generate_fictitious(Fictitious(6, 4, 0.34)).forget
    assert (
        rows["generative"]["f1"] > rows["random"]["f1"]
    )  # the stub names what begins with a capital or a digit
    capital = [
        s.answer[span.start].isupper() or s.answer[span.start].isdigit()
        for s in gold
        for span in s.unwanted
    ]
    assert rows["generative"]["recall"] >= 0.9 * sum(capital) / len(capital)


@pytest.mark.real
@pytest.mark.parametrize("split", ["forget01", "forget05", "forget10"])
def test_the_released_masks_agree_as_a_plain_count_of_their_rows_says(shared, tmp_path, split):
    import datasets

    samples, unwanted = read_tofu(str(shared / "tofu"), split).forget, {}
    for maker in ("gpt", "bert"):
        folder = shared / "tofu_masks" / f"{split}_with_common_words_{maker}"
        span_file.write_spans(
            tmp_path / f"{maker}.jsonl",
            precomputed.read_precomputed(folder, samples, "complement"),
            {},
        )
        unwanted[maker] = []
        for row in datasets.load_from_disk(str(folder)).to_list():
            spans = [json.loads(word) for word in row["common_words"]]
            common = {i for s in spans for i in range(s["start"], s["end"])}
            unwanted[maker] += [
                common.isdisjoint(range(w.start, w.end)) for w in find_words(row["answer"])
            ]
    both, either = (sum(map(f, zip(*unwanted.values(), strict=True))) for f in (all, any))
    comparison = span_comparison.compare_files([tmp_path / "gpt.jsonl", tmp_path / "bert.jsonl"])
    assert comparison["jaccard"]["gpt"]["bert"] == pytest.approx(both / either)
    assert (
        0.28 < both / either < 0.34
    )  # the two masks that the authors ship say the same of a third of the words
