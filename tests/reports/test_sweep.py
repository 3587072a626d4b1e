import io
import json
import math

import pytest
from rich.console import Console

from tif.reports import sweep
from tif.reports.html.comparison import find_leaders
from tif.reports.sweep import View
from tif.reports.sweep_plots import draw_sweep


def evaluation(epoch, quality, utility):
    return {
        "epoch": epoch,
        "step": epoch,
        "forget/quality": quality,
        "utility/model": utility,
        "forget/probability": 0.5,
    }


def test_last_and_chosen_epoch_have_their_mean_and_deviation_over_seeds(tmp_path):
    # The rows of the chosen epochs are those of summary.json: of the half that did not choose them.
    tables = [
        [evaluation(0, 0.9, 0.9), evaluation(2, 0.4, 0.6), evaluation(3, 0.2, 0.2)],
        [evaluation(0, 0.7, 0.9), evaluation(1, 0.8, 0.5), evaluation(3, 0.6, 0.4)],
    ]
    chosen = [evaluation(2, 0.3, 0.5), evaluation(1, 0.5, 0.7)]
    for seed, table in enumerate(tables):
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / "metrics.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in table)
        )
        summary = {"best": chosen[seed], "best_groups": {"forget": {"author": 2}}}
        (tmp_path / str(seed) / "summary.json").write_text(json.dumps(summary))
    results = sweep.collect_results({"a": [tmp_path / "0", tmp_path / "1"], "none": []})
    best, last = results["runs"]["a"]["best"], results["runs"]["a"]["last"]
    assert best["epoch"]["values"] == [2, 1]
    assert best["forget/quality"]["mean"] == pytest.approx(0.4)
    assert best["forget/quality"]["sd"] == pytest.approx(math.sqrt(2 * 0.1**2))  # n - 1 = 1
    assert last["utility/model"]["mean"] == pytest.approx(0.3)
    assert results["before"]["forget/quality"] == pytest.approx(0.8)
    assert results["runs"]["none"] == {
        "seeds": 0,
        "best": {},
        "last": {},
        "steps": [],
        "intervals": {"best": [], "last": []},
        "over": "questions",
    }
    header, *lines = sweep.full_table(results)
    assert header[:5] == ["run", "epoch", "seeds", "steps", "forget quality ↑"]
    assert lines[0][:3] == ["a", "best (2/1)", "2"]
    assert lines[0][4] == "0.400 ± 0.141"
    assert lines[1][1] == "last (3)"


def numbers(quality, utility, sd):
    return {
        "seeds": 3,
        **{
            epoch: {
                key: {"mean": mean, "sd": sd, "values": [mean] * 3}
                for key, mean in (
                    ("epoch", 4 + (epoch == "last" or utility == 0.8)),
                    ("eval/score", quality),
                    ("forget/quality", quality),
                    ("utility/model", utility),
                    ("forget/extraction_strength", utility / 10),
                )
            }
            for epoch in ("best", "last")
        },
    }


def test_the_printed_table_ranks_the_runs_and_fits_80_columns(tmp_path, monkeypatch):
    results = {
        "runs": {
            "none": {"seeds": 0, "best": {}, "last": {}},
            "whp_inference": numbers(1.9e-04, 0.8, 2.3e-04),
            "tpo_centred": numbers(0.6, 0.8, 0.12),
            "muse_logit_npo": numbers(0.3, 0.7, 0.0) | {"last": numbers(0.1, 0.6, 0.0)["last"]},
        },
        "before": {"forget/quality": 1.2e-66, "utility/model": 0.9},
        "retain_model": {"utility/model": 0.9},
        "models": {"before": 1, "retain_model": 1},
    }
    header, *table = sweep.short_table(results)
    assert header == ["run", "epoch", "forget quality ↑", "model utility ↑", "forget extraction ↓"]
    assert table == [
        ["tpo_centred", "last (5)", "0.600 ± 0.120", "0.800 ± 0.120", "0.080 ± 0.120"],
        ["muse_logit_npo", "best (4)", "0.300 ± 0.000", "0.700 ± 0.000", "0.070 ± 0.000"],
        ["muse_logit_npo", "last (5)", "0.100 ± 0.000", "0.600 ± 0.000", "0.060 ± 0.000"],
        ["whp_inference", "last (5)", "1.9e-04 ± 2e-04", "0.800 ± 2e-04", "0.080 ± 2e-04"],
        ["none", "last", "-", "-", "-"],
        ["before", "-", "1.2e-66", "0.900", "-"],
        ["retain model", "-", "-", "0.900", "-"],
    ]
    screen = Console(width=80, file=io.StringIO())
    monkeypatch.setattr(sweep, "console", screen)
    sweep.show_results(tmp_path, results)
    lines = screen.file.getvalue().splitlines()
    assert max(map(len, lines[:-1])) <= 80  # the last one is a path
    i = next(i for i, line in enumerate(lines) if "whp_inference" in line)
    assert lines[i].split() == [
        "whp_inference", "last", "(5)", "1.9e-04", "±", "2e-04", "0.800", "±", "2e-04", "0.080",
        "±", "2e-04",
    ]  # fmt: skip
    i = next(i for i, line in enumerate(lines) if "muse_logit_npo" in line)
    assert lines[i + 1].split()[:2] == ["last", "(5)"]  # the name once


def test_runs_within_the_deviation_over_seeds_share_the_lead():
    runs = {
        "a": numbers(0.60, 0.8, 0.05),
        "b": numbers(0.56, 0.8, 0.05),
        "c": numbers(0.5, 0.8, 0.0),
    }
    assert find_leaders({"runs": runs}) == ["a", "b"]
    assert find_leaders({"runs": {"a": runs["a"], "c": runs["c"]}}) == ["a"]
    assert find_leaders({"runs": {"none": {"seeds": 0, "best": {}, "last": {}}}}) == []


def test_the_printed_table_shows_unwanted_and_general_words_where_they_are_known():
    labelled = numbers(0.6, 0.8, 0.1)
    for epoch in ("best", "last"):
        labelled[epoch]["words/unwanted"] = {"mean": 0.25, "sd": None, "values": [0.25]}
    results = {
        "runs": {"tpo": labelled}, "before": {"words/unwanted": 0.9}, "retain_model": {},
        "models": {"before": 1, "retain_model": 0},
    }  # fmt: skip
    header, *lines = sweep.short_table(results)
    assert header[-1] == "UW prob. ↓"
    assert [line[-1] for line in lines] == ["0.250", "0.900"]


def test_a_long_name_takes_no_number_from_the_printed_table(tmp_path, monkeypatch):
    name = "Chinese,kind=contrastive"
    results = {
        "runs": {name: numbers(0.6, 0.765, 0.12)},
        "before": {"utility/model": 0.912}, "retain_model": {},
        "models": {"before": 1, "retain_model": 1},
    }  # fmt: skip
    screen = Console(width=80, file=io.StringIO())
    monkeypatch.setattr(sweep, "console", screen)
    sweep.show_table(results)
    lines = screen.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    (run,) = [line for line in lines if name in line]
    assert "0.765" in run
    (before,) = [line for line in lines if "before" in line]
    assert before.split()[-2:] == ["0.912", "-"]


def test_the_model_before_keeps_the_numbers_that_only_some_runs_have(tmp_path):
    folders = {}
    for name, values in {
        "uw": {"words/unwanted": 0.2, "utility/model": 0.4},
        "all": {"utility/model": 0.6},
    }.items():
        folder = folders[name] = tmp_path / name
        folder.mkdir()
        (folder / "metrics.jsonl").write_text(json.dumps({"epoch": 0, "step": 0, **values}) + "\n")
    before = sweep.collect_results({name: [folder] for name, folder in folders.items()})["before"]
    assert before == {"epoch": 0.0, "words/unwanted": 0.2, "utility/model": 0.5}


def test_the_line_of_models_that_differ_says_that_it_is_a_mean(tmp_path):
    folders = {}
    for name, utility, uw in (("a", 0.25, 0.1), ("b", 0.5, 0.1), ("c", 0.5, 0.9)):
        folder = folders[name] = tmp_path / name
        folder.mkdir()
        row = {"epoch": 0, "step": 0, "utility/model": utility, "words/unwanted": uw}
        (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    # b and c are one model, of which each run marked other words
    results = sweep.collect_results({name: [folder] for name, folder in folders.items()})
    assert [line[0] for line in sweep.full_table(results)][-1] == "before, mean of 2"
    of_one_model = sweep.collect_results({name: [folders[name]] for name in "bc"})
    assert [line[0] for line in sweep.full_table(of_one_model)][-1] == "before"


def test_one_seed_has_no_deviation(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(evaluation(1, 0.5, 0.25)) + "\n")
    results = sweep.collect_results({"a": [tmp_path]})
    assert results["runs"]["a"]["last"]["utility/model"] == {
        "mean": 0.25,
        "sd": None,
        "values": [0.25],
    }
    assert sweep.full_table(results)[1][4] == "0.500"


def write_run(folder, rows, seed=0, lr=0.1, **summary):
    """Write the files of a run that a sweep's results read."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = {
        "run": {"seed": seed},
        "data": {"benchmark": "fictitious"},
        "model": {"path": "m"},
        "stages": {},
        "eval": {"before_training": rows[0]["epoch"] == 0, "protocol": "open-unlearning"},
        "optimizer": {"lr": lr},
    }
    (folder / "config.yaml").write_text(json.dumps(keys))
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def sweep_folders(tmp_path):
    """Two runs of two seeds; only the first of each seed evaluates its starting model."""
    low, high = [], []
    for seed, start in enumerate((0.8, 0.5)):
        rows = [evaluation(0, 0.01, start), evaluation(2, 0.5, 0.4)]
        interval = {"forget/quality": [0.25, 0.75]}
        summary = {"intervals": interval, "groups": {"forget": {"author": 4}}}
        low.append(write_run(tmp_path / f"low{seed}", rows, seed, **summary))
        high.append(write_run(tmp_path / f"high{seed}", [evaluation(2, 0.1, 0.2)], seed, lr=1))
    return {"lr=0.1": low, "lr=1": high}


def test_utility_kept_is_the_share_of_the_starting_models_of_the_same_seed(sweep_folders):
    runs = sweep.collect_results(sweep_folders)["runs"]
    assert runs["lr=0.1"]["last"]["utility/kept"]["values"] == pytest.approx([0.5, 0.8])
    assert runs["lr=1"]["last"]["utility/kept"]["values"] == pytest.approx([0.25, 0.4])


def test_no_share_is_kept_of_a_starting_model_that_was_not_evaluated(tmp_path):
    rows = [evaluation(0, 0.01, 0.8), evaluation(2, 0.5, 0.4)]
    folders = {
        "a": [write_run(tmp_path / "a", rows)],
        "b": [write_run(tmp_path / "b", rows[1:], 1)],
    }
    runs = sweep.collect_results(folders)["runs"]
    assert runs["a"]["last"]["utility/kept"]["values"] == pytest.approx([0.5])
    assert "utility/kept" not in runs["b"]["last"]


def test_the_table_of_a_view_has_its_columns_and_the_interval_of_each_seed(sweep_folders):
    view = View(epoch="last", columns=["forget/quality", "utility/kept"])
    table = sweep.view_table(sweep.collect_results(sweep_folders), view)
    over = "0.250 – 0.750; 0.250 – 0.750 over 4 authors"
    assert table == [
        ["run", "seeds", "steps", "forget quality ↑", "95 %", "utility kept ↑"],
        ["lr=0.1", "2", "2", "0.500 ± 0.000", over, "0.650 ± 0.212"],
        ["lr=1", "2", "2", "0.100 ± 0.000", "-", "0.325 ± 0.106"],
        ["before, mean of 2", "-", "-", "0.010", "-", "-"],
    ]


def charts_of(folders, **view):
    entries = {"lr=0.1": ("", {"optimizer.lr": 0.1}), "lr=1": ("", {"optimizer.lr": 1})}
    results = sweep.collect_results(folders)
    return draw_sweep(folders, results, View(epoch="last", entries=entries, **view))


def test_a_plot_over_a_key_joins_the_runs_that_differ_in_it(sweep_folders):
    (chart,) = charts_of(sweep_folders, plots={"lr": ["optimizer.lr", "utility/kept"]})
    (series,) = chart.series
    assert series.x == (0.1, 1.0)
    assert series.y == pytest.approx((0.65, 0.325))
    assert (chart.x, chart.y) == ("optimizer.lr", "utility kept ↑")
    assert not chart.marks
    assert not chart.x_log


def test_the_axis_of_a_key_with_values_far_apart_and_of_a_p_value_is_logarithmic(tmp_path):
    rows = [evaluation(2, 0.5, 1e-6), evaluation(2, 0.1, 0.9)]
    folders = {
        f"lr={lr}": [write_run(tmp_path / f"{lr}", [row], lr=lr)]
        for lr, row in zip((0.001, 1), rows, strict=True)
    }
    plots = {
        x: [x, "forget/probability"] for x in ("optimizer.lr", "utility/model", "forget/quality")
    }
    charts = charts_of(folders, plots=plots)
    assert {chart.name: chart.x_log for chart in charts} == {
        "optimizer.lr": True, "utility/model": False, "forget/quality": True,
    }  # fmt: skip


def test_a_plot_of_two_metrics_names_each_point_by_its_value_of_the_grid(sweep_folders):
    (chart,) = charts_of(sweep_folders, plots={"cost": ["utility/kept", "forget/quality"]})
    (series,) = chart.series
    assert series.y == pytest.approx((0.5, 0.1))
    assert [mark.name for mark in chart.marks] == ["0.1", "1"]
    assert chart.y_log


def test_a_path_is_a_run_over_its_epochs_and_a_plot_without_points_is_left_out(sweep_folders):
    view = {
        "plots": {"none": ["utility/kept", "muse/privleak"]},
        "paths": {"path": ["utility/model", "forget/quality"]},
    }
    (chart,) = charts_of(sweep_folders, **view)
    assert [series.name for series in chart.series] == ["lr=0.1", "lr=1"]
    assert chart.series[0].x == pytest.approx((0.65, 0.4))
