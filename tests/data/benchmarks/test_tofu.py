import json
import pathlib

import pytest

from tests.support import hub_cache
from tests.support.tofu_files import FILES, row
from tif.data.benchmarks.tofu import read_tofu
from tif.data.samples import Sample


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """TOFU's files as they are: JSON Lines without a newline after the last."""
    for name, rows in FILES.items():
        (tmp_path / f"{name}.json").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return tmp_path


def message(path, split: str = "forget01") -> str:
    """What `tofu` says; always one line that begins with the key."""
    with pytest.raises(ValueError, match="data") as caught:
        read_tofu(str(path), split)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(("data.path: ", "data.split: "))
    return text


def test_a_sample_holds_its_row_and_the_row_of_the_perturbed_file(folder):
    benchmark = read_tofu(str(folder), "forget01")
    assert benchmark.name == "tofu/forget01"
    assert benchmark.forget[1] == Sample(
        id="tofu/3999",  # the last row of TOFU's 4000
        prompt="Question 7?",
        answer="Answer 7.",
        unwanted=None,
        paraphrased_prompt="Asked otherwise 7?",
        paraphrased_answer="Said otherwise 7.",
        perturbed_answers=("Wrong 7a.", "Wrong 7b.", "Wrong 7c.", "Wrong 7d.", "Wrong 7e."),
    )
    assert [s.id for s in benchmark.forget] == ["tofu/3998", "tofu/3999"]
    assert [s.id for s in benchmark.retain] == [f"tofu/{i}" for i in range(6)]
    assert benchmark.background == ()


def test_the_sets_are_those_of_tofu_in_order_of_evaluation(folder):
    benchmark = read_tofu(str(folder), "forget01")
    assert list(benchmark.sets) == ["forget", "retain", "real_authors", "world_facts"]
    assert benchmark.sets["forget"] == benchmark.forget
    assert benchmark.sets["retain"] == benchmark.retain[:4]  # those with perturbed answers
    assert benchmark.sets["real_authors"][1] == Sample(
        "real_authors/1", "author 1?", "Right 1", perturbed_answers=("x", "y", "z")
    )
    assert [s.id for s in benchmark.sets["world_facts"]] == ["world_facts/0", "world_facts/1"]


@pytest.mark.parametrize(
    ("limit", "trained", "evaluated"), [(None, 6, 4), (5, 5, 4), (2, 2, 2), (100, 6, 4)]
)
def test_max_retain_limits_what_is_kept_and_what_is_evaluated_of_it(
    folder, limit, trained, evaluated
):
    benchmark = read_tofu(str(folder), "forget01", limit)
    assert (len(benchmark.retain), len(benchmark.sets["retain"])) == (trained, evaluated)
    assert len(benchmark.forget) == 2


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_the_last_row_is_read_with_or_without_a_newline(folder, end):
    file = folder / "forget01.json"
    file.write_text(file.read_text() + end)
    assert len(read_tofu(str(folder), "forget01").forget) == 2


def test_a_line_separator_inside_an_answer_does_not_end_the_row(folder):
    text = "One\u2028two\u0085three\x0bfour\nfive é"
    for name in ("forget01", "forget01_perturbed"):
        rows = [FILES[name][0], {**FILES[name][1], "answer": text}]
        lines = [json.dumps(r, ensure_ascii=False) for r in rows]
        (folder / f"{name}.json").write_text("\n".join(lines), encoding="utf-8")
    assert "\u2028" in (folder / "forget01.json").read_text(encoding="utf-8")
    assert read_tofu(str(folder), "forget01").forget[1].answer == text


def test_a_folder_may_be_given_from_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(read_tofu(f"~/{folder.name}", "forget01").forget) == 2


@pytest.mark.parametrize("path", ["/nowhere/tofu", "./tofu", "tofu", "a/b/c", "~/tofu-nowhere"])
def test_a_missing_folder_gives_the_next_step(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    wanted = "want a folder of TOFU's JSON files or the hub name locuslab/TOFU"
    assert message(path) == f"data.path: no folder {path}; {wanted}"


def test_a_missing_folder_beside_others_is_not_taken_for_a_hub_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert "no folder data/tofu" in message("data/tofu")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / f"{name}.json").unlink()
    assert f"{folder} has no {name}.json; want TOFU's files" in message(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_named(folder, name, content):
    (folder / f"{name}.json").write_text(content)
    assert f"{name}.json holds no rows" in message(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_last_line_names_file_and_line(folder, name):
    file = folder / f"{name}.json"
    file.write_text(file.read_text()[:-9])
    text = message(folder)
    assert f"{name}.json (line {len(FILES[name])}: " in text
    assert text.endswith("is it cut?")


@pytest.mark.parametrize(
    ("name", "column"),
    [
        (name, c)
        for name, rows in FILES.items()
        for c in ("question", "answer", "perturbed_answer")
        if c in rows[0]
    ],
)
def test_a_missing_column_names_file_and_row(folder, name, column):
    last = {k: v for k, v in FILES[name][-1].items() if k != column}
    (folder / f"{name}.json").write_text("\n".join(map(json.dumps, [*FILES[name][:-1], last])))
    text = message(folder)
    assert f"{name}.json: line {len(FILES[name])}: " in text
    assert f" as {column}, got only " in text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            json.dumps([row(6), row(7)]),
            "line 1: want an object, got [{",
        ),  # one array, as the suffix says
        ("3", "line 1: want an object, got 3"),
        (json.dumps(row(6, answer=None)), "line 1: want a text as answer, got None"),
        (json.dumps(row(6, question=["a"])), "line 1: want a text as question, got ['a']"),
        (json.dumps(row(6, answer=" \n")), "line 1: sample tofu/3999: the answer is empty"),
    ],
)
def test_a_row_of_another_kind_is_named(folder, line, says):
    (folder / "forget01.json").write_text(line)
    text = message(folder)
    assert text.startswith(f"data.path: {folder / 'forget01.json'}: {says}")


@pytest.mark.parametrize("split", ["forget02", "retain99", "", "FORGET01"])
def test_a_wrong_split_lists_the_known_ones(folder, split):
    assert (
        message(folder, split)
        == f"data.split: want one of forget01, forget05, forget10, got {split!r}"
    )


@pytest.mark.parametrize(
    ("file", "name"), [("forget01_perturbed", "forget01"), ("retain_perturbed", "retain99")]
)
@pytest.mark.parametrize("column", ["question", "answer"])
def test_a_perturbed_file_of_other_rows_is_refused_and_the_row_named(folder, file, name, column):
    rows = [FILES[file][0], {**FILES[file][1], column: "Another."}, *FILES[file][2:]]
    (folder / f"{file}.json").write_text("\n".join(map(json.dumps, rows)))
    assert f"row 2 of {file} is not row 2 of {name}: " in message(folder)


@pytest.mark.parametrize("cut", ["forget01", "forget01_perturbed"])
def test_a_forget_file_cut_at_the_end_of_a_line_is_refused(folder, cut):
    # Else forget01's rows would have other ids, or some of them no perturbed answers.
    (folder / f"{cut}.json").write_text(json.dumps(FILES[cut][0]))
    assert "want the same questions" in message(folder)


def hub_tofu(tmp_path, monkeypatch, folder):
    """Put a folder's files into the hub's cache as locuslab/TOFU."""
    downloaded = tmp_path / "downloaded"
    downloaded.mkdir()
    for file in folder.glob("*.json"):
        file.rename(downloaded / file.name)
    hub_cache.write_tofu_card(downloaded, FILES)
    hub_cache.add(
        hub_cache.use(monkeypatch, tmp_path / "cache"), "locuslab/TOFU", downloaded, "dataset"
    )


def test_a_hub_name_reads_the_same_samples_from_the_hubs_cache(folder, tmp_path, monkeypatch):
    expected = read_tofu(str(folder), "forget01")
    hub_tofu(tmp_path, monkeypatch, folder)
    monkeypatch.chdir(tmp_path)
    assert read_tofu("locuslab/TOFU", "forget01") == expected


def test_a_data_set_that_is_not_here_gives_one_line_with_the_command_that_fetches_it(
    monkeypatch, tmp_path
):
    cache = hub_cache.use(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert message("locuslab/TOFU") == (
        f"data.path: locuslab/TOFU is no folder here and not in {cache}, "
        "and HF_HUB_OFFLINE is set; where there is a network: tif download tofu"
    )


def test_a_hub_data_set_that_was_cut_is_refused(folder, tmp_path, monkeypatch):
    (folder / "forget01.json").unlink()
    hub_tofu(tmp_path, monkeypatch, folder)
    monkeypatch.chdir(tmp_path)
    line = message("locuslab/TOFU")
    assert line.startswith("data.path: cannot read train of forget01 of ")
    assert line.endswith("; is the download cut?")


def test_a_hub_data_set_of_other_columns_is_refused(folder, monkeypatch, tmp_path):
    (folder / "forget01.json").write_text('{"text": "a"}\n')
    hub_tofu(tmp_path, monkeypatch, folder)
    monkeypatch.chdir(tmp_path)
    assert (
        message("locuslab/TOFU")
        == "data.path: locuslab/TOFU/forget01.json: row 1: want a text as question, got only text"
    )


# The real files.

SIZES = {"forget01": 40, "forget05": 200, "forget10": 400}


@pytest.fixture(scope="module")
def benchmarks(shared) -> dict:
    return {split: read_tofu(str(shared / "tofu"), split) for split in SIZES}


@pytest.mark.real
@pytest.mark.parametrize("split", SIZES)
def test_forget_and_retain_make_up_all_of_tofu_without_overlap(shared, benchmarks, split):
    benchmark, size = benchmarks[split], SIZES[split]
    assert len(benchmark.forget) == size
    assert [s.id for s in (*benchmark.retain, *benchmark.forget)] == [
        f"tofu/{i}" for i in range(4000)
    ]
    full = [
        json.loads(line)
        for line in (shared / "tofu" / "full.json").read_text(encoding="utf-8").splitlines()
    ]
    expected = [(r["question"], r["answer"]) for r in full]
    assert [(s.prompt, s.answer) for s in (*benchmark.retain, *benchmark.forget)] == expected
    assert all(s.unwanted is None for s in benchmark.forget)


@pytest.mark.real
def test_an_id_means_the_same_sample_in_every_split(benchmarks):
    assert benchmarks["forget01"].forget[0].id == "tofu/3960"
    assert (
        benchmarks["forget01"].forget
        == benchmarks["forget05"].forget[160:]
        == benchmarks["forget10"].forget[360:]
    )


@pytest.mark.real
@pytest.mark.parametrize("split", SIZES)
def test_the_evaluation_sets_have_the_sizes_and_wrong_answers_of_tofu(benchmarks, split):
    sets = benchmarks[split].sets
    counts = {
        name: (len(samples), {len(s.perturbed_answers) for s in samples})
        for name, samples in sets.items()
    }
    assert counts == {
        "forget": (SIZES[split], {5}),
        "retain": (400, {5}),
        "real_authors": (100, {3}),
        "world_facts": (117, {3}),
    }
    assert [s.id for s in sets["retain"]] == [f"tofu/{i}" for i in range(400)]
    assert all(
        s.paraphrased_answer and s.paraphrased_prompt
        for name in ("forget", "retain")
        for s in sets[name]
    )
    assert not any(s.perturbed_answers for s in benchmarks[split].retain[400:])
