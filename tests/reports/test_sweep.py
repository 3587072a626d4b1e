import io
import json
import math

import pytest
from rich.console import Console

from tif.reports import sweep


def evaluation(epoch, quality, utility):
    return {
        "epoch": epoch,
        "step": epoch,
        "forget/quality": quality,
        "utility/model": utility,
        "forget/probability": 0.5,
    }


def test_best_and_last_epoch_have_their_mean_and_deviation_over_seeds(tmp_path):
    # seed 0: epoch 1 has more utility, but can be told from a retain model;
    # epoch 0, before training, does not count
    tables = [
        [
            evaluation(0, 0.9, 0.9),
            evaluation(1, 0.001, 0.7),
            evaluation(2, 0.4, 0.6),
            evaluation(3, 0.2, 0.2),
        ],
        [
            evaluation(0, 0.7, 0.9),
            evaluation(1, 0.8, 0.5),
            evaluation(2, 0.4, 0.1),
            evaluation(3, 0.6, 0.4),
        ],
    ]
    for seed, table in enumerate(tables):
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / "metrics.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in table)
        )
    found = sweep.collect_results({"a": [tmp_path / "0", tmp_path / "1"], "none": []})
    best, last = found["runs"]["a"]["best"], found["runs"]["a"]["last"]
    assert best["epoch"]["values"] == [2, 1]
    assert best["forget/quality"]["mean"] == pytest.approx(0.6)
    assert best["forget/quality"]["sd"] == pytest.approx(math.sqrt(2 * 0.2**2))  # n - 1 = 1
    assert last["utility/model"]["mean"] == pytest.approx(0.3)
    assert found["before"]["forget/quality"] == pytest.approx(0.8)
    assert found["runs"]["none"] == {"seeds": 0, "best": {}, "last": {}, "steps": []}
    header, *lines = sweep.full_table(found)
    assert header[:5] == ["run", "epoch", "seeds", "steps", "forget quality ↑"]
    assert lines[0][:3] == ["a", "best (2/1)", "2"]
    assert lines[0][4] == "0.600 ± 0.283"
    assert lines[1][1] == "last (3)"


def numbers(quality, utility, sd):
    return {
        "seeds": 3,
        **{
            epoch: {
                key: {"mean": mean, "sd": sd, "values": [mean] * 3}
                for key, mean in (
                    ("epoch", 5),
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
    found = {
        "runs": {
            "none": {"seeds": 0, "best": {}, "last": {}},
            "whp_inference": numbers(1.9e-04, 0.8, 2.3e-04),
            "tpo_centred": numbers(0.6, 0.8, 0.12),
            "muse_logit_npo": numbers(0.3, 0.7, 0.0),
        },
        "before": {"forget/quality": 1.2e-66, "utility/model": 0.9},
        "retain_model": {"utility/model": 0.9},
    }
    header, *table = sweep.short_table(found)
    assert header == ["run", "epoch", "forget quality ↑", "extraction ↓", "model utility ↑"]
    assert table == [
        ["tpo_centred", "best (5)", "0.600 ± 0.120", "0.080 ± 0.120", "0.800 ± 0.120"],
        ["tpo_centred", "last (5)", "0.600 ± 0.120", "0.080 ± 0.120", "0.800 ± 0.120"],
        ["muse_logit_npo", "best (5)", "0.300 ± 0.000", "0.070 ± 0.000", "0.700 ± 0.000"],
        ["muse_logit_npo", "last (5)", "0.300 ± 0.000", "0.070 ± 0.000", "0.700 ± 0.000"],
        ["whp_inference", "best (5)", "1.9e-04 ± 2e-04", "0.080 ± 2e-04", "0.800 ± 2e-04"],
        ["whp_inference", "last (5)", "1.9e-04 ± 2e-04", "0.080 ± 2e-04", "0.800 ± 2e-04"],
        ["none", "best", "-", "-", "-"],
        ["none", "last", "-", "-", "-"],
        ["before", "-", "1.2e-66", "-", "0.900"],
        ["retain model", "-", "-", "-", "0.900"],
    ]
    screen = Console(width=80, file=io.StringIO())
    monkeypatch.setattr(sweep, "console", screen)
    sweep.show_results(tmp_path, found)
    lines = screen.file.getvalue().splitlines()
    assert max(map(len, lines[:-1])) <= 80  # the last one is a path
    i = next(i for i, line in enumerate(lines) if "whp_inference" in line)
    assert lines[i].split() == [
        "whp_inference", "best", "(5)", "1.9e-04", "±", "2e-04", "0.080", "±", "2e-04", "0.800", "±", "2e-04",
    ]  # fmt: skip
    assert lines[i + 1].split()[:2] == ["last", "(5)"]  # the name once


def test_one_seed_has_no_deviation(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(evaluation(1, 0.5, 0.25)) + "\n")
    found = sweep.collect_results({"a": [tmp_path]})
    assert found["runs"]["a"]["last"]["utility/model"] == {
        "mean": 0.25,
        "sd": None,
        "values": [0.25],
    }
    assert sweep.full_table(found)[1][4] == "0.500"
