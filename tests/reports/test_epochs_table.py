import pytest

from tests.support.terminal_text import shown
from tif.metrics.registry import all_metrics, find_metric
from tif.records.run_folder import evaluation_rows, read_summary
from tif.reports.columns import column_title, format_number, list_columns
from tif.reports.epochs_table import choose_epochs, list_notes, metrics_table, name_run
from tif.reports.summary import Best, DataKeys, RunNumbers, retain_row

TINY = {"forget/quality": 1.1e-17, "utility/model": 0.5, "forget/probability": 0.25}


def make_rows(epochs):
    return [{"epoch": epoch, "step": epoch, **TINY} for epoch in epochs]


def read_lines(table, width):
    """Return the lines of a table below its head, each as a list of cells."""
    lines = [line.split() for line in shown(table, width).splitlines()]
    start = next(i for i, line in enumerate(lines) if line and set(line[0]) == {"─"})
    return [line for line in lines[start + 1 :] if line]


def read_heads(table, width):
    lines = shown(table, width).splitlines()
    return next(line for line in lines if line.strip().startswith("metric")).split()


def test_each_metric_has_a_line_with_every_epoch_and_the_retain_model(run):
    rows, retain = evaluation_rows(run), retain_row(run)
    table = metrics_table(RunNumbers(rows, retain, {}), "title", 120)
    assert read_heads(table, 120) == ["metric", "before", "1", "after", "model"]
    lines = read_lines(table, 120)
    present = [metric for metric in list_columns() if metric in rows[0]]
    assert len(lines) == len(present) > 5
    for metric, line in zip(present, lines, strict=True):
        values = [format_number(row[metric]) for row in rows]
        assert line[: -len(values) - 1] == column_title(metric).split()
        assert line[-len(values) - 1 :] == [*values, format_number(retain.get(metric))]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal_and_wraps_nothing(width, run):
    intervals = read_summary(run).intervals | {"forget/quality": (1.1e-17, 2.2e-17)}
    rows = [{**row, **TINY} for row in evaluation_rows(run)]
    rows += [{**rows[-1], "epoch": epoch} for epoch in range(3, 41)]
    best = Best(17, {"epoch": 17, **TINY}, {}, {"forget": {"author": 2}})
    numbers = RunNumbers(rows, retain_row(run), intervals, best)
    text = shown(metrics_table(numbers, "title", width), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    heads = read_heads(metrics_table(numbers, "title", width), width)
    assert heads[1] == "before"
    assert "17*" in heads
    assert heads[-6:] == ["after", "95", "%", "interval", "17*", "model"]
    assert len(heads) > (8 if width == 80 else 12)
    metrics = [metric for metric in list_columns() if metric in rows[-1]]
    assert len(read_lines(metrics_table(numbers, "title", width), width)) == len(metrics)


@pytest.mark.parametrize(
    ("last", "best", "count", "expected"),
    [
        (4, None, 5, [0, 1, 2, 3, 4]),
        (8, None, 5, [0, 2, 4, 6, 8]),
        (8, 4, 5, [0, 2, 4, 6, 8]),
        (9, 9, 4, [0, 3, 6, 9]),
        (20, 7, 4, [0, 7, 10, 20]),
        (20, 7, 2, [0, 20]),
    ],
)
def test_epochs_in_the_middle_are_thinned_and_the_best_one_stays(last, best, count, expected):
    assert choose_epochs(range(last + 1), best, count) == expected


def test_a_chosen_epoch_has_a_column_of_the_half_that_did_not_choose_it():
    rows = [{"epoch": epoch, "forget/probability": 0.1 * epoch} for epoch in range(4)]
    best = Best(2, {"epoch": 2, "forget/probability": 0.25}, {}, {"forget": {"author": 2}})
    numbers = RunNumbers(rows, {}, {}, best)
    table = metrics_table(numbers, "title")
    assert read_lines(table, 80) == [
        ["forget", "prob.", "↓", "0.000", "0.100", "0.200", "0.300", "0.250"]
    ]
    assert read_heads(table, 80)[-3:] == ["2*", "after", "2*"]
    assert list_notes(numbers)[-2:] == [
        "the last epoch is the result; * the epoch that one half of the questions chose",
        "half: its numbers on the other half: forget 2 authors",
    ]


def test_of_one_author_no_epoch_is_chosen_and_a_note_says_so():
    numbers = RunNumbers(make_rows([0, 1]), {}, {}, None, {"forget": {"author": 1}})
    assert list_notes(numbers)[-1].startswith("no epoch is chosen: a set with one author")


def test_no_choice_of_epochs_is_larger_than_wanted_or_loses_an_end():
    for last in range(1, 30):
        for count in range(2, 12):
            for best in (None, 1, last):
                chosen = choose_epochs(range(last + 1), best, count)
                assert chosen == sorted(set(chosen))
                assert len(chosen) <= count
                assert (chosen[0], chosen[-1]) == (0, last)
                assert best is None or best in chosen or count == 2


def test_metrics_that_no_epoch_has_are_left_out():
    table = metrics_table(RunNumbers([{"epoch": 0, "forget/probability": 0.5}], {}, {}), "title")
    assert read_lines(table, 80) == [["forget", "prob.", "↓", "0.500"]]


def test_a_title_is_not_wrapped_because_the_table_is_narrow():
    title = "npo_on_words/seed0, invented authors: before and after 6 epochs"
    table = metrics_table(RunNumbers([{"epoch": 0, "forget/probability": 0.5}], {}, {}), title)
    assert title in shown(table, width=80)


def test_the_title_names_the_data_and_no_other_benchmark():
    numbers = RunNumbers(make_rows([0, 1]), {}, {})
    title = name_run("mine", DataKeys("text", None), numbers)
    assert title == "mine, your own texts: before and after 1 epoch"
    title = name_run("a", DataKeys("tofu", "forget05"), RunNumbers(make_rows([0, 5]), {}, {}))
    assert title == "a, TOFU forget05: before and after 5 epochs"
    title = name_run("a", DataKeys("tofu", "forget05"), RunNumbers(make_rows([0]), {}, {}))
    assert title == "a, TOFU forget05: before training"


def test_notes_speak_of_what_the_run_has_measured():
    muse = RunNumbers([{"epoch": 0, "muse/privleak": -3.0}], {}, {})
    assert list_notes(muse) == [find_metric("muse/privleak").note]
    tofu = RunNumbers(make_rows([0, 1, 2]), {}, {}, Best(2))
    assert list_notes(tofu)[-1].startswith("* the last epoch, which is the result, is also the one")
    assert not any("PrivLeak" in line for line in list_notes(tofu))
    assert max(len(metric.note) for metric in all_metrics().values()) <= 80
