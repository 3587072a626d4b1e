"""A metric is one file: what it registers is what every table, page and logger shows of it."""

import pytest

import tif.metrics
from tests.support.new_files import put_into_room
from tests.support.report_runs import write_run
from tests.support.terminal_text import shown
from tif.metrics import overall, registry
from tif.metrics.results import NumbersRequest, compute_results
from tif.records.types import Evaluation, Record, RecordSet
from tif.reports import epochs_table, run_list, sweep, wandb_content
from tif.reports.evaluation import evaluation_table
from tif.reports.html import run_report
from tif.reports.html.run_data import read_run
from tif.reports.summary import RunNumbers

FILE = '''
"""Politeness, from the answers."""

import numpy as np

from tif.metrics.registry import register_metric


@register_metric(
    "<set>/politeness", "politeness", better="↑", reads="answers", unit="percent", decimals=1,
    main=("forget",), columns={"forget": 1},
)
def politeness(records, rules):
    """Return how polite a model is.

    Formula: none. Range: 0 to 100. Better: higher. Perfect unlearning: 100. Source: a test.
    """
    return np.array([10 * record.loss for record in records.records])
'''


@pytest.fixture
def _politeness(tmp_path, monkeypatch):
    with put_into_room(monkeypatch, tmp_path, tif.metrics, "politeness", FILE):
        yield


def evaluation(loss):
    records = [Record(f"q/{i}", "Q?", "A", loss, 1, loss, (1.0, 2.0)) for i in range(2)]
    return Evaluation("m", {"forget": RecordSet("forget", tuple(records))})


@pytest.mark.usefixtures("_politeness")
def test_a_metric_registered_in_one_file_is_computed_for_every_set():
    assert overall.aggregate(evaluation(2.0))["forget/politeness"] == 20
    results = compute_results(NumbersRequest(evaluation(2.0), evaluation(3.0), "a", "b", draws=10))
    assert results["tasks"]["forget"]["politeness"] == 20
    assert results["retain_metrics"]["forget/politeness"] == 30


@pytest.mark.usefixtures("_politeness")
def test_a_new_metric_that_should_rise_on_the_forget_set_rises_in_every_table(tmp_path):
    results = compute_results(NumbersRequest(evaluation(2.0), evaluation(3.0), "a", "b", draws=10))
    of_command = shown(evaluation_table(results), 100)
    (line,) = [line for line in of_command.splitlines() if "politeness" in line]
    assert line.split()[:4] == ["politeness,", "percent", "↑", "20.0"]
    assert "30.0" in line
    rows = [{"epoch": epoch, "forget/politeness": 50.04 + epoch} for epoch in (0, 1)]
    of_run = shown(epochs_table.metrics_table(RunNumbers(rows, {}, {}), "title"), 80)
    assert "forget politeness ↑   50.0  51.0" in of_run
    folder = write_run(tmp_path / "run", metrics=[{"forget/politeness": 50.0}] * 3)
    head, body = run_report.epoch_table(read_run(folder))
    assert head[1].replace("\u00a0", " ") == "forget politeness ↑"
    assert body[0]["cells"][1]["text"] == "50.0"
    listed = shown(run_list.runs_table([run_list.RunLine("a", metrics=rows[1])]), 80)
    assert "politeness" in listed
    assert listed.index("↑") < listed.index("51.0")
    sweep_results = sweep.collect_results({"a": [folder]})
    assert sweep.short_table(sweep_results)[0][2] == "forget politeness ↑"
    content = wandb_content.evaluation_content(results | {"model": "m"}, None, 0)
    assert ["", "forget/politeness", "↑", 20.0] in [row[:4] for row in content.tables["numbers"][1]]
    assert "forget/politeness" not in registry.cards_as_text()
    assert "<set>/politeness\n  How polite a model is" in registry.cards_as_text()


@pytest.mark.usefixtures("_politeness")
def test_an_epoch_is_best_where_a_metric_that_should_fall_is_lowest():
    rows = [{"epoch": i, "choice/x/politeness": i, "choice/retain/kl": 0.1 * i} for i in (1, 2)]
    assert overall.find_best_epoch(rows, "x/politeness") == 2
    assert overall.find_best_epoch(rows, "retain/kl") == 1
