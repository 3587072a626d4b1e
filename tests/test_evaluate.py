"""The command on recorded logs, against numpy and scipy on their raw JSON; and on bad input."""

import dataclasses
import functools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import scipy.stats

import tif.evaluate as evaluate
from tests.support.evaluation_logs import LOGS, NAMES, ROWS, TASKS, ask_three_authors, log, real
from tif.metrics import fluency, registry
from tif.records import files as records
from tif.records.protocols import OPEN_UNLEARNING
from tif.records.types import Evaluation, Record, RecordSet

FORMS = ("truth_ratio", "truth_ratio_arithmetic", "truth_ratio_probability")


def run(capsys, *argv):
    """What `--json` prints."""
    assert evaluate.main([*map(str, argv), "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return json.loads(printed.out)


def refused(capsys, *argv):
    """The one line on stderr; nothing on stdout."""
    assert evaluate.main([*map(str, argv)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


@functools.cache
def expected_of(name):
    """The means by set and metric, and forget's log truth ratios, from the raw JSON alone."""
    raw, means = json.loads((LOGS / f"{NAMES[name]}.json").read_text()), {}
    for key, task in TASKS.items():
        column = {
            c: np.array(list(rows.values()))
            for c, rows in raw[task].items()
            if c != "generated_text"
        }
        p, wrong = np.exp(-column["avg_gt_loss"]), np.exp(-column["average_perturb_loss"])
        right = np.exp(-column["avg_paraphrased_loss"])
        geometric = scipy.stats.gmean(wrong, axis=1)
        turn = (
            (lambda r: np.minimum(r, 1 / r))
            if key == "forget"
            else (lambda r: np.maximum(0, 1 - r))
        )
        ratios = (turn(geometric / right), turn(wrong.mean(1) / right), right / (right + geometric))
        options = p / (p + wrong.sum(1))
        means[key] = {
            "probability": (options if key in ("real_authors", "world_facts") else p).mean(),
            "rouge1": column["rouge1_recall"].mean(),
            "rougeL": column["rougeL_recall"].mean(),
            **{form: ratio.mean() for form, ratio in zip(FORMS, ratios, strict=True)},
            "repetition": np.mean(
                [fluency.repetition(row[1]) for row in raw[task]["generated_text"].values()]
            ),
            "entropy": np.mean(
                [fluency.entropy(row[1]) for row in raw[task]["generated_text"].values()]
            ),
        }
        if key == "forget":
            logs = np.log(geometric / right)
    return means, logs


@real
@pytest.mark.parametrize("shape", ["dicts", "lists", "folder"])
def test_all_parts_utility_and_quality_equal_plain_arithmetic_on_the_raw_logs(
    shape, tmp_path, capsys
):
    paths = {name: LOGS / f"{NAMES[name]}.json" for name in ("full", "retain90")}
    if shape == "lists":
        raw = json.loads(paths["full"].read_text())
        paths["full"] = tmp_path / "lists.json"
        paths["full"].write_text(
            json.dumps(
                {t: {c: list(r.values()) for c, r in columns.items()} for t, columns in raw.items()}
            )
        )
    if shape == "folder":
        records.write_evaluation(tmp_path / "eval", records.read_evaluation(paths["full"]), {})
        paths["full"] = tmp_path / "eval"
    numbers = run(capsys, f"records={paths['full']}", f"retain_records={paths['retain90']}")
    (means, ours), (_, theirs) = expected_of("full"), expected_of("retain90")
    assert list(numbers["tasks"]) == ["forget", "retain", "real_authors", "world_facts"]
    for name, expected in means.items():
        assert numbers["tasks"][name] == pytest.approx(expected, rel=1e-9, abs=0)
    nine = [means[s][m] for s in list(TASKS)[:3] for m in ("probability", "rougeL", "truth_ratio")]
    assert numbers["model_utility"] == pytest.approx(scipy.stats.hmean(nine), rel=1e-9, abs=0)
    assert numbers["forget_quality"] == pytest.approx(
        scipy.stats.ks_2samp(ours, theirs).pvalue, rel=1e-9, abs=0
    )
    assert numbers["mismatch"] is None
    assert numbers["questions"] == {
        "forget": 300,
        "retain": 300,
        "real_authors": 100,
        "world_facts": 117,
    }


@real
def test_intervals_of_the_real_log_are_students_over_authors(capsys):
    numbers = run(capsys, f"records={LOGS / NAMES['retain99']}.json")
    assert numbers["groups"]["retain"] == {"author": 15}
    task = json.loads((LOGS / f"{NAMES['retain99']}.json").read_text())["eval_log.json"]
    for metric, values in (
        ("probability", np.exp(-np.array(list(task["avg_gt_loss"].values())))),
        ("rougeL", np.array(list(task["rougeL_recall"].values()))),
    ):
        authors = values.reshape(15, 20).mean(1)
        around = scipy.stats.ttest_1samp(authors, 0).confidence_interval(0.95)
        # The slope of the logit at the mean brings the half width onto its scale, and back.
        mean = authors.mean()
        half = (around.high - mean) / (mean * (1 - mean))
        expected = scipy.special.expit(scipy.special.logit(mean) + np.array([-half, half]))
        actual = numbers["intervals"]["tasks"]["retain"][metric]
        assert actual == pytest.approx([*expected], rel=1e-6)
    low, high = numbers["intervals"]["model_utility"]
    assert low < numbers["model_utility"] < high


@real
def test_a_retain_log_of_other_questions_is_refused_unless_allowed(capsys):
    words = [
        f"records={LOGS / NAMES['full']}.json",
        f"retain_records={LOGS / NAMES['retain95']}.json",
    ]
    line = refused(capsys, *words)
    assert line.startswith(
        f"retain_records: {LOGS / NAMES['retain95']}.json: "
        "300 questions against the retain model's 200"
    )
    assert (
        "only here 200, first forget/0: "
        "'Question: What is the full name of the author born in Taipei, Taiwan" in line
    )
    assert "only there 100, first forget/100: " in line
    assert line.endswith("; allow_mismatch=true computes it all the same")
    numbers = run(capsys, *words, "allow_mismatch=true")
    expected = scipy.stats.ks_2samp(expected_of("full")[1], expected_of("retain95")[1]).pvalue
    assert numbers["forget_quality"] == pytest.approx(expected, rel=1e-9, abs=0)
    assert numbers["intervals"]["forget_quality"] is None  # there are no pairs to draw
    assert numbers["mismatch"] in line


@real
def test_a_retain_log_of_another_model_family_is_refused(capsys):
    # Nothing in such a log names the family, but another tokenizer makes other numbers of tokens.
    raw = [json.loads((LOGS / f"{NAMES[n]}.json").read_text()) for n in ("full", "llama_retain90")]
    ours, theirs = (list(r["eval_log_forget.json"]["num_token_gt"].values()) for r in raw)
    differ = [i for i in range(300) if ours[i] != theirs[i]]
    i = differ[0]
    line = refused(
        capsys,
        f"records={LOGS / NAMES['full']}.json",
        f"retain_records={LOGS / NAMES['llama_retain90']}.json",
    )
    assert "another model family" in line
    assert f"{len(differ)} of 300 answers" in line
    assert f"first forget/{i}: {ours[i]} here, {theirs[i]} there" in line


# Small logs


def test_a_model_against_itself_has_quality_one_and_so_has_its_interval(tmp_path, capsys):
    path = log(tmp_path / "log.json", ask_three_authors)
    numbers = run(capsys, f"records={path}", f"retain_records={path}")
    assert numbers["forget_quality"] == 1
    assert numbers["intervals"]["forget_quality"] == [1, 1]


def test_what_was_not_asked_for_or_recorded_is_null(tmp_path, capsys):
    bare = RecordSet("forget", (Record("q/0", "Who?", "Me.", 0.5, 2),))
    records.write_evaluation(
        tmp_path, Evaluation("m", {"forget": bare}, protocol={"name": "open-unlearning"}), {}
    )
    numbers = run(capsys, f"records={tmp_path}")
    assert (numbers["model_utility"], numbers["forget_quality"]) == (None, None)
    expected = dict.fromkeys(("rouge1", "rougeL", *FORMS)) | {
        "probability": pytest.approx(math.exp(-0.5))
    }
    assert numbers["tasks"] == {"forget": expected}
    assert numbers["intervals"]["tasks"]["forget"]["rougeL"] is None
    assert numbers["intervals"]["model_utility"] is None


def test_the_seed_owns_the_draws_of_forget_quality_and_nothing_else(tmp_path, capsys):
    path, retain = (log(tmp_path / f"{name}.json", ask_three_authors) for name in ("log", "retain"))
    retain.write_text(retain.read_text().replace("[0.5, 1.5]", "[3.5, 1.5]"))
    words = [f"records={path}", f"retain_records={retain}", "draws=101"]
    first, second, other = (run(capsys, *words, f"seed={seed}") for seed in (1, 1, 2))
    assert first == second
    assert first["intervals"].pop("forget_quality") != other["intervals"].pop("forget_quality")
    assert first["intervals"] == other["intervals"]
    assert first["tasks"] == other["tasks"]


def test_the_table_names_the_protocol_of_each_number_and_a_mismatch(tmp_path, capsys):
    evaluation = records.read_evaluation(log(tmp_path / "log.json", ask_three_authors))
    for folder, name in (("ours", "open-unlearning"), ("retain", "legacy-tofu")):
        records.write_evaluation(
            tmp_path / folder, Evaluation(folder, evaluation.sets, protocol={"name": name}), {}
        )
    words = [f"records={tmp_path / 'ours'}", f"retain_records={tmp_path / 'retain'}"]
    assert "the protocol is 'open-unlearning', the retain model's is 'legacy-tofu'" in refused(
        capsys, *words
    )
    output = run(capsys, *words, "allow_mismatch=true")
    assert evaluate.main([*words, "allow_mismatch=true"]) == 0
    text = capsys.readouterr().out
    numbers = [line for line in text.splitlines() if "–" in line]
    assert len(numbers) == 3 + 4 * 8  # quality, utility, answers that read
    assert all("open-unlearning" in line for line in numbers)
    assert "legacy-tofu" in text.split("model utility")[0]
    assert f"NOT COMPARABLE, computed all the same: {output['mismatch']}" in text
    row = next(line for line in numbers if "model utility" in line)
    assert f"{output['model_utility']:.3f}" in row
    assert max(map(len, text.split("intervals:")[0].splitlines())) <= 80
    over = " ".join(text.split("intervals:")[1].split())
    controls = "real_authors 3 questions, world_facts 3 questions"
    assert over.startswith(f"Student's t over retain 3 authors, {controls}, forget 3 authors")


def test_a_protocol_that_all_numbers_share_stands_once_below_the_table(tmp_path, capsys):
    evaluation = records.read_evaluation(log(tmp_path / "log.json", ask_three_authors))
    rules = dataclasses.asdict(OPEN_UNLEARNING)
    folder = tmp_path / "ours"
    records.write_evaluation(folder, Evaluation("ours", evaluation.sets, protocol=rules), {})
    assert evaluate.main([f"records={folder}"]) == 0
    text = capsys.readouterr().out
    assert text.count("open-unlearning") == 1
    assert "\nprotocol: open-unlearning\nintervals: " in text


def test_markup_in_names_is_shown_as_it_is(tmp_path, capsys):
    sets = records.read_evaluation(log(tmp_path / "log.json")).sets
    records.write_evaluation(
        tmp_path / "eval", Evaluation("[red]m", sets, protocol={"name": "[/]"}), {}
    )
    assert evaluate.main([f"records={tmp_path / 'eval'}"]) == 0
    text = capsys.readouterr().out
    assert "[red]m" in text
    assert "[/]" in text


def _drop(task, column):
    return lambda content: content[task].pop(column)


@pytest.mark.parametrize("setting", ["records", "retain_records"])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            _drop("eval_log_forget.json", "avg_paraphrased_loss"),
            "avg_paraphrased_loss is missing",
        ),
        (
            lambda c: c["eval_log_forget.json"]["avg_gt_loss"].__setitem__(1, math.nan),
            "avg_gt_loss/1 is nan, want a finite",
        ),
        (
            lambda c: c["eval_log_forget.json"].update({k: [] for k in ROWS}),
            "forget: the set has no records",
        ),
        (
            lambda c: c["eval_log_forget.json"].update(average_perturb_loss=[[], [], []]),
            "average_perturb_loss/0: want one or more, got []",
        ),
        (lambda c: c.clear(), "not an evaluation log"),
    ],
    ids=["missing column", "NaN", "empty set", "no perturbed answers", "nothing"],
)
def test_bad_input_is_refused_in_one_line_that_names_setting_and_file(
    setting, edit, message, tmp_path, capsys
):
    bad, good = log(tmp_path / "bad.json", edit), log(tmp_path / "good.json")
    other = {"records": "retain_records", "retain_records": "records"}[setting]
    line = refused(capsys, f"{setting}={bad}", f"{other}={good}", "--json")
    assert line.startswith(f"{setting}: {bad}: ")
    assert message in line


def test_a_truncated_log_is_refused(tmp_path, capsys):
    path = log(tmp_path / "log.json")
    path.write_text(path.read_text()[:-100])
    assert "not valid JSON, perhaps cut short" in refused(capsys, f"records={path}")


def test_each_of_two_bad_inputs_has_its_line(tmp_path, capsys):
    assert evaluate.main([f"records={tmp_path / 'a'}", f"retain_records={tmp_path}"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"records: {tmp_path / 'a'}: no such file or folder"
    assert second.startswith(f"retain_records: {tmp_path}: no aggregates.json in it")


def test_a_retain_log_without_forget_questions_is_refused_whatever_is_allowed(tmp_path, capsys):
    full, retain = (
        log(tmp_path / "log.json"),
        log(tmp_path / "retain.json", tasks=["eval_log.json"]),
    )
    line = refused(capsys, f"records={full}", f"retain_records={retain}", "allow_mismatch=true")
    problem = "the retain model's evaluation has no forget records, only retain"
    assert line == f"retain_records: {retain}: {problem}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [],
            "model.path: want a Hugging Face folder or hub name, "
            "or records=LOG (see --help), got null",
        ),
        (["records=x", "model.path=y"], "model.path: records= needs no model; want one of the two"),
        (
            ["model.path=y", "eval.benchmarks=tofu,muse"],
            (
                "eval.benchmarks: want lume, muse-books, muse-news, text, tofu or lm-eval:TASK, "
                "got 'muse'"
            ),
        ),
        (
            ["model.path=y", "eval.benchmarks=''"],
            (
                "eval.benchmarks: want lume, muse-books, muse-news, text, tofu or lm-eval:TASK, "
                "got none"
            ),
        ),
        (
            ["model.path=y", "eval.benchmarks=text"],
            "eval.text.path: benchmark text needs its data, got null",
        ),
        (
            ["model.path=y", "eval.benchmarks=tofu,muse-news", "retain_records=z"],
            "retain_records: serves one benchmark, got 2; want retain_model=PATH",
        ),
        (
            ["model.path=y", "retain_records=z", "retain_model=z"],
            "retain_records: retain_model is given too",
        ),
        (
            ["model.path=y", "template=x"],
            "template: want a text with {prompt} in it, chat or auto; got 'x'",
        ),
        (["record=x"], "record: unknown key; did you mean records?"),
        (["records=x", "draws=many"], "draws: want int, got 'many'"),
        (["records=x", "draws=1"], "draws: must be >= 100, got 1"),
        (["x.json"], "x.json: want a .yaml file or key=value"),
    ],
)
def test_wrong_settings_are_told_as_those_of_a_run(words, message, capsys):
    assert message in refused(capsys, *words)


def test_the_metric_cards_say_formula_range_direction_and_perfect_value(capsys):
    assert evaluate.main(["--metrics"]) == 0
    text = capsys.readouterr().out
    for card in registry.metric_cards():
        assert f"{card.name}\n  {card.sentence[:60]}" in text
        for field in registry.FIELDS:
            assert f"  {field}: {card.fields[field][:30]}" in text
    assert "Raises" not in text
    assert "Args:" not in text


def test_help_lists_the_settings(capsys):
    assert evaluate.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "retain_records=null" in text
    assert "optimizer" not in text


def test_the_command_needs_no_torch(tmp_path):
    code = (
        "import sys; import tif.evaluate as evaluate; "
        "assert not {'torch', 'numpy', 'rich'} & set(sys.modules); "
        "code = evaluate.main(sys.argv[1:]); "
        "assert not {'torch', 'lightning', 'transformers'} & set(sys.modules); "
        "sys.exit(code)"
    )
    path = log(tmp_path / "log.json")
    words = [f"records={path}", f"retain_records={path}", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["forget_quality"] == 1
