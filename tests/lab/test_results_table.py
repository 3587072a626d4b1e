"""The command that makes tables of docs/results from a sweep's results."""

import csv
import json

from lab import results_table

# Two runs of three seeds, rounded: what runs/preservation has for `none` and `sum` 1.
RUNS = {
    "none": {"forget/quality": [0.0541, 0.0971, 0.0971], "utility/kept": [0.0, 0.3125, 0.6325]},
    "sum": {"forget/quality": [0.0143, 0.0068, 0.0143], "utility/kept": [0.9192, 0.9192, 0.9192]},
}


def make_results():
    """Return the results of the two runs, and of the models that they start from and aim at."""
    runs = {}
    for name, metrics in RUNS.items():
        last = {}
        for metric, values in metrics.items():
            last[metric] = {"mean": sum(values) / 3, "sd": 0.1, "values": values}
        runs[name] = {"last": last}
    return {"runs": runs, "before": {"utility/kept": 1.0}, "retain_model": {}}


def test_a_table_has_means_with_limits_and_every_forget_quality(tmp_path, capsys):
    (tmp_path / "results.json").write_text(json.dumps(make_results()))
    results_table.main(str(tmp_path), "forget/quality", "utility/kept")
    header, *rows = csv.reader(capsys.readouterr().out.splitlines())
    assert header[0] == "run"
    assert rows == [
        ["none", "0.054, 0.097, 0.097", "0.315 (0.000 – 0.632)"],
        ["sum", "0.014, 0.007, 0.014", "0.919"],
        ["before", "-", "1.000"],
        ["retain model", "-", "-"],
    ]
