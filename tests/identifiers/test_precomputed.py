import json
import os
import pathlib
import subprocess
import sys

import datasets
import pytest

from tif.data.samples import Sample, Span, merge_spans
from tif.identifiers import span_file
from tif.identifiers.precomputed import read_precomputed

SHARED = (
    pathlib.Path(
        os.environ.get("TIF_SHARED") or pathlib.Path(__file__).parents[2].parent / "shared"
    )
    / "data"
)

SAMPLES = [
    Sample("toy/0", "Where was she born?", "Mira Dell was born in Čačak, not Oslo."),
    Sample("toy/1", "What does she write?", "She writes\n sea stories."),
]
#                 01234567890123456789012345678901234567
# Mira Dell was born in Čačak, not Oslo.     common: was, born, in, not, Oslo
COMMON = [
    [("was", 10), ("born", 14), ("in", 19), ("not", 29)],
    [("She", 0), ("writes", 4)],
]
TARGETS = [[("Čačak", 22), ("Mira Dell", 0)], []]  # unsorted, as in the release


def word(text: str, start: int) -> dict:
    return {"word": text, "start": start, "end": start + len(text)}


def table(common=COMMON, targets=TARGETS, samples=SAMPLES) -> dict:
    columns = {
        "question": [s.prompt for s in samples],
        "answer": [s.answer for s in samples],
        "common_words": [[json.dumps(word(*w)) for w in words] for words in common],
    }
    if targets is not None:
        columns["target_words"] = [json.dumps([word(*w) for w in words]) for words in targets]
    return columns


def save(folder: pathlib.Path, columns: dict) -> pathlib.Path:
    kinds = {name: datasets.Value("string") for name in columns} | {
        "common_words": [datasets.Value("string")]
    }
    datasets.Dataset.from_dict(columns, datasets.Features(kinds)).save_to_disk(folder)
    return folder


@pytest.fixture
def gpt(tmp_path) -> pathlib.Path:
    return save(tmp_path / "masks_gpt", table())


@pytest.fixture
def bert(tmp_path) -> pathlib.Path:
    return save(tmp_path / "masks_bert", table(targets=None))


def words(sample: Sample) -> list[str]:
    assert sample.unwanted is not None
    return [sample.answer[span.start : span.end] for span in sample.unwanted]


def message(path, samples=SAMPLES, rule="complement", key="identifier.path") -> str:
    """What `precomputed` says; always one line that begins with the key."""
    with pytest.raises(ValueError, match="identifier") as caught:
        read_precomputed(path, samples, rule)
    text = str(caught.value)
    assert text.startswith(f"{key}: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("folder", ["gpt", "bert"])
def test_complement_takes_everything_between_the_common_words(request, folder):
    first, second = read_precomputed(request.getfixturevalue(folder), SAMPLES, "complement")
    assert words(first) == [
        "Mira Dell",
        "Čačak,",
        "Oslo.",
    ]  # no punctuation is listed, so it is unwanted
    assert words(second) == ["sea stories."]  # and the newline before it is not


def test_targets_takes_the_target_words_only(gpt):
    first, second = read_precomputed(gpt, SAMPLES, "targets")
    assert first.unwanted == (Span(0, 9), Span(22, 27))
    assert second.unwanted == ()


def test_everything_else_of_a_sample_stays(gpt):
    first, second = read_precomputed(gpt, SAMPLES, "complement")
    assert (first.id, first.prompt, first.answer) == (
        SAMPLES[0].id,
        SAMPLES[0].prompt,
        SAMPLES[0].answer,
    )
    assert second.id == "toy/1"


def test_an_answer_without_common_words_is_unwanted_as_a_whole(tmp_path):
    first, _ = read_precomputed(
        save(tmp_path / "masks", table(common=[[], COMMON[1]])), SAMPLES, "complement"
    )
    assert words(first) == [SAMPLES[0].answer]


def test_a_folder_without_rows_is_no_mask_folder(tmp_path):
    assert "is not a mask folder" in message(save(tmp_path / "masks", table([], [], [])))


@pytest.mark.parametrize("rule", ["complement", "targets"])
def test_a_span_file_gives_its_own_spans_under_either_rule(tmp_path, rule):
    identified = [Sample(s.id, s.prompt, s.answer, (Span(1, 4),)) for s in SAMPLES]
    span_file.write_spans(tmp_path / "spans.jsonl", identified, {})
    assert read_precomputed(tmp_path / "spans.jsonl", SAMPLES[1:], rule) == (identified[1],)


def test_loading_prints_nothing_and_writes_nothing(gpt):
    def state():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in [gpt, *gpt.rglob("*")]}

    before = state()
    code = (
        "from tif.data.samples import Sample\n"
        "from tif.identifiers.precomputed import read_precomputed\n"
        f"read_precomputed({str(gpt)!r}, {SAMPLES!r}, 'targets')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
    assert state() == before


def test_a_missing_path_gives_the_next_step(tmp_path):
    text = message(tmp_path / "nowhere")
    assert "nowhere does not exist; give a span file (.jsonl) or a mask folder" in text


def test_an_unknown_rule_lists_the_known_ones(gpt):
    assert "want one of complement, targets, got 'union'" in message(
        gpt, rule="union", key="identifier.rule"
    )


def test_targets_of_a_bert_folder_names_the_rule_that_works(bert):
    text = message(bert, rule="targets", key="identifier.rule")
    assert "targets needs the column target_words" in text
    assert text.endswith("use complement")


def test_another_number_of_rows_shows_both_counts(gpt):
    assert "has 2 rows, the forget set has 1 samples" in message(gpt, SAMPLES[:1])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            Sample("toy/1", "What does he write?", SAMPLES[1].answer),
            "the mask has 'What does she write?', sample toy/1",
        ),
        (
            Sample("toy/1", SAMPLES[1].prompt, "He rests."),
            "has 'He rests.'; wrong folder for this split?",
        ),
    ],
    ids=["question", "answer"],
)
def test_a_row_of_another_sample_is_named(request, gpt, changed, says):
    text = message(gpt, [SAMPLES[0], changed])
    assert f"row 2: {request.node.callspec.id} differs: " in text
    assert says in text


@pytest.mark.parametrize("rule", ["complement", "targets"])
@pytest.mark.parametrize(
    "misplaced", [("Čačak", 24), ("Oslo.!", 33)], ids=["byte offset", "past the end"]
)
def test_a_span_that_is_not_its_word_is_named(tmp_path, rule, misplaced):
    column = {"complement": "common", "targets": "targets"}[rule]
    text = message(save(tmp_path / "masks", table(**{column: [[misplaced], []]})), rule=rule)
    assert (
        f"row 1: {column.removesuffix('s')}_words: {misplaced[0]!r} is not at {misplaced[1]}:"
        in text
    )
    assert "code points" in text


def test_a_span_past_the_end_is_refused_though_the_cut_text_agrees(tmp_path):
    columns = table()
    columns["target_words"][0] = json.dumps([{"word": "Oslo.", "start": 33, "end": 99}])
    assert "target_words: 'Oslo.' is not at 33:99" in message(
        save(tmp_path / "masks", columns), rule="targets"
    )


@pytest.mark.parametrize(
    "cell",
    ["{broken", '{"word": "was"}', '{"word": "was", "start": 10.0, "end": 13.0}', "[1]", None],
)
def test_a_cell_that_is_no_word_is_named(tmp_path, cell):
    columns = table()
    columns["common_words"][1] = [cell]
    assert "row 2: common_words: want JSON objects" in message(save(tmp_path / "masks", columns))


def test_a_missing_column_is_named(tmp_path):
    columns = table()
    del columns["answer"]
    assert "is not a mask folder (no column answer among question, common" in message(
        save(tmp_path / "m", columns)
    )


def test_a_folder_of_splits_is_refused_with_their_names(tmp_path):
    splits = datasets.DatasetDict({"forget": datasets.Dataset.from_dict(table())})
    splits.save_to_disk(tmp_path / "masks")
    assert "(a DatasetDict with the splits forget)" in message(tmp_path / "masks")


def test_a_folder_of_anything_else_is_no_mask_folder(tmp_path):
    assert "is not a mask folder" in message(tmp_path)


def test_a_damaged_mask_file_is_no_traceback(gpt):
    (arrow,) = gpt.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:200])
    assert "is not a mask folder" in message(gpt)


def test_an_error_of_a_span_file_names_the_key_too(tmp_path):
    (tmp_path / "spans.jsonl").write_text("{}\n")
    assert "spans.jsonl: not a span file" in message(tmp_path / "spans.jsonl")


# The released masks. Expected values are those of ../shared/data/README.md, or counted here from
# the raw columns.

MEAN_SHARE = {  # percent of an answer's non-blank characters in common words, mean over rows
    ("forget01", "gpt"): 67,
    ("forget05", "gpt"): 68,
    ("forget10", "gpt"): 67,
    ("forget01", "bert"): 26,
    ("forget05", "bert"): 29,
    ("forget10", "bert"): 29,
}
NO_TARGET = {
    "forget01": [],
    "forget05": [47, 50, 57, 150],
    "forget10": [8, 28, 64, 83, 124, 144, 163, 184, 247, 250, 257, 350],
}
NO_COMMON = {"forget01": [1], "forget05": [161], "forget10": [181, 361]}  # bert

real = [
    pytest.mark.real,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"no {SHARED}: needs the benchmark data"),
]


def every_mask(function):
    """Parametrised by (split, identifier) and marked as a test of real data."""
    for mark in [*real, pytest.mark.parametrize(("split", "by"), list(MEAN_SHARE))]:
        function = mark(function)
    return function


def released(split: str, by: str) -> pathlib.Path:
    return SHARED / "tofu_masks" / f"{split}_with_common_words_{by}"


def tofu(split: str) -> list[Sample]:
    rows = [
        json.loads(line)
        for line in (SHARED / "tofu" / f"{split}.json").read_text(encoding="utf-8").splitlines()
    ]
    return [
        Sample(f"tofu/{4000 - len(rows) + i}", row["question"], row["answer"])
        for i, row in enumerate(rows)
    ]


def characters(spans) -> set[int]:
    return {i for start, end in spans for i in range(start, end)}


def raw(spans) -> set[int]:
    return characters((span["start"], span["end"]) for span in spans)


def ours(sample: Sample) -> set[int]:
    assert sample.unwanted is not None
    return characters((span.start, span.end) for span in sample.unwanted)


@every_mask
def test_every_nonblank_character_of_a_released_row_is_common_or_unwanted(split, by):
    shares = []
    rows = datasets.load_from_disk(str(released(split, by)))
    identified = read_precomputed(released(split, by), tofu(split), "complement")
    for row, sample in zip(rows, identified, strict=True):
        text = {i for i, character in enumerate(row["answer"]) if not character.isspace()}
        common = raw(json.loads(cell) for cell in row["common_words"]) & text
        assert ours(sample) & text == text - common, sample.id
        shares.append(len(common) / len(text))
    assert round(100 * sum(shares) / len(shares)) == MEAN_SHARE[split, by]


@every_mask
def test_released_spans_are_sorted_and_begin_and_end_with_a_word(split, by):
    for sample in read_precomputed(released(split, by), tofu(split), "complement"):
        assert merge_spans(sample.unwanted or ()) == sample.unwanted
        assert words(sample) == [text.strip() for text in words(sample)]


@every_mask
def test_released_rows_without_common_words_are_unwanted_as_a_whole(split, by):
    identified = read_precomputed(released(split, by), tofu(split), "complement")
    entirely_unwanted = [
        i for i, sample in enumerate(identified) if words(sample) == [sample.answer]
    ]
    assert entirely_unwanted == (NO_COMMON[split] if by == "bert" else [])


@every_mask
def test_released_targets_are_read_as_they_are_or_refused(split, by):
    if by == "bert":
        assert "use complement" in message(
            released(split, by), tofu(split), "targets", key="identifier.rule"
        )
        return
    rows = datasets.load_from_disk(str(released(split, by)))
    identified = read_precomputed(released(split, by), tofu(split), "targets")
    for row, sample in zip(rows, identified, strict=True):
        assert ours(sample) == raw(json.loads(row["target_words"])), sample.id
    assert [i for i, sample in enumerate(identified) if not sample.unwanted] == NO_TARGET[split]


@every_mask
def test_released_spans_survive_our_own_file(tmp_path, split, by):
    identified = read_precomputed(released(split, by), tofu(split), "complement")
    span_file.write_spans(
        tmp_path / "spans.jsonl",
        identified,
        {"name": "precomputed", "path": released(split, by).name},
    )
    assert (
        read_precomputed(tmp_path / "spans.jsonl", tofu("forget01"), "complement")
        == identified[-40:]
    )


@every_mask
def test_released_masks_of_another_split_are_refused(split, by):
    shifted = tofu("full")[: len(tofu(split))]
    assert "row 1: question differs" in message(released(split, by), shifted)
