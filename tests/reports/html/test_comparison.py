import json

import pytest

from tests.support.report_runs import write_run
from tif.records import run_folder
from tif.reports.html import comparison, comparison_data, page


def rows(quality, utility):
    """Return the metrics of three epochs whose last one has these values."""
    pairs = [(1e-9, 0.9), (quality / 2, utility - 0.1), (quality, utility)]
    scores = [0.0, 0.1, 0.2]
    return [
        {"forget/quality": q, "utility/model": u, "eval/score": s}
        for (q, u), s in zip(pairs, scores, strict=True)
    ]


@pytest.fixture
def sweep(tmp_path):
    """The folder of a sweep: two seeds of npo, one of <b>tpo</b>."""
    keys = {"loss": {"forget": "npo", "beta": 0.1}, "run": {"export": True}}
    other = {"loss": {"forget": "lpl", "beta": 0.5}}
    values = {"npo/seed0": (0.2, 0.5), "npo/seed1": (0.4, 0.7), "<b>tpo/seed0": (0.9, 0.8)}
    for seed, (name, pair) in enumerate(values.items()):
        run = {"run": {"export": True, "seed": seed, "name": name}}
        write_run(
            tmp_path / "sweep" / name,
            metrics=rows(*pair),
            config=(keys if "npo" in name else other) | run,
        )
    return tmp_path / "sweep"


def groups(folder):
    return comparison_data.group_runs(comparison_data.find_runs(folder))


def test_runs_that_differ_in_their_seed_alone_are_one_group(sweep):
    run_groups = groups(sweep)
    assert [(group.name, len(group.folders)) for group in run_groups] == [("<b>tpo", 1), ("npo", 2)]
    npo = run_groups[1]
    assert [row["epoch"] for row in npo.rows] == [0, 1, 2]
    assert npo.rows[2]["forget/quality"] == pytest.approx(0.3)
    assert npo.rows[2]["utility/model"] == pytest.approx(0.6)


def test_runs_of_one_name_and_other_keys_are_told_apart(tmp_path):
    for i in range(2):
        write_run(tmp_path / str(i) / "run", metrics=rows(0.1, 0.2), config={"loss": {"beta": i}})
    assert [
        g.name for g in comparison_data.group_runs([tmp_path / "0/run", tmp_path / "1/run"])
    ] == ["run", "run (2)"]


def test_only_the_keys_that_differ_are_shown(sweep):
    keys, values = comparison_data.find_differences(groups(sweep))
    assert keys == ["loss.forget", "loss.beta"]
    assert values == [["lpl", "0.5"], ["npo", "0.1"]]


def test_the_words_are_means_over_the_seeds(sweep):
    npo = groups(sweep)[1]
    charts = comparison.word_charts(groups(sweep))
    assert [chart.title for chart in charts] == ["<b>tpo", "npo"]
    assert [series.role for series in charts[0].series] == ["uw", "gw"]
    for epoch in range(3):
        values = [
            run_folder.evaluation_rows(folder)[epoch]["words/unwanted"] for folder in npo.folders
        ]
        assert charts[1].series[0].y[epoch] == pytest.approx(sum(values) / 2)


def test_the_frontier_marks_the_last_epoch_of_each_run(sweep):
    run_groups = groups(sweep)
    chart = comparison.frontier_chart(run_groups, comparison_data.collect(run_groups))
    assert [series.name for series in chart.series] == ["<b>tpo", "npo"]
    assert chart.series[1].y == pytest.approx((1e-9, 0.15, 0.3))
    assert [(mark.name, mark.x, mark.y) for mark in chart.marks] == [
        ("<b>tpo", 0.8, 0.9), ("npo", pytest.approx(0.6), pytest.approx(0.3)),
    ]  # fmt: skip
    assert [guide.name for guide in chart.guides] == ["retain model", "0.05: no longer told apart"]


def test_a_tie_names_no_winner(tmp_path):
    for name, quality in (("a", 0.2), ("b", 0.2), ("c", 1e-9)):
        keys = {"loss": {"forget": "npo", "name": name}}
        write_run(tmp_path / name, metrics=rows(quality, 0.5), config=keys)
    run_groups = comparison_data.group_runs([tmp_path / name for name in "abc"])
    assert comparison.find_leaders(comparison_data.collect(run_groups)) == ["a", "b"]
    comparison.write_comparison(
        [tmp_path / name for name in "abc"], tmp_path / "report.html", "abc"
    )
    text = (tmp_path / "report.html").read_text()
    assert "There is no single best one" in text
    assert "by <b>a</b> and <b>b</b>.</p>" in text


def test_a_tie_of_many_is_counted_and_of_few_has_each_name():
    macro = page._environment().get_template("prose.html").module.comparison
    few, several = (
        macro(5, 5, names, {"eval/score": {"mean": 0.5}}, [])
        for names in (["a", "b", "c"], [*"abcde"])
    )
    assert few.endswith(
        "<b>0.500</b>, is shared (within the deviation over seeds) "
        "by <b>a</b>, <b>b</b> and <b>c</b>."
    )
    assert several.endswith("by <b>5</b> of them, the upper lines of the table.")


def test_of_many_runs_only_the_last_epochs_are_drawn(tmp_path):
    for i in range(9):
        keys = {"loss": {"forget": "npo", "beta": i}}
        write_run(
            tmp_path / f"run{i}", metrics=rows(0.1 * (i + 1), 0.5), sets={"forget": 1}, config=keys
        )
    run_groups = comparison_data.group_runs(sorted(tmp_path.glob("run*")))
    chart = comparison.frontier_chart(run_groups, comparison_data.collect(run_groups))
    assert [len(series.x) for series in chart.series] == [1] * 9
    assert [(mark.name, mark.shape) for mark in chart.marks] == [
        (f"run{i}", "filled") for i in range(9)
    ]
    assert chart.series[8].labels == ("run8, last epoch",)
    assert (
        len({series.role for series in chart.series})
        == len({mark.role for mark in chart.marks})
        == 9
    )


def test_the_page_compares_the_runs_and_links_to_their_reports(sweep):
    (sweep / "npo" / "seed0" / "report.html").write_text("")
    out = sweep / "report.html"
    charts = comparison.write_comparison(comparison_data.find_runs(sweep), out, "sweep")
    page = out.read_text()
    assert [chart.name for chart in charts] == ["frontier", "words-0", "words-1"]
    assert 'href="npo/seed0/report.html"' in page
    assert "<b>tpo" not in page
    assert "&lt;b&gt;tpo" in page
    assert "0.300 ± 0.141" in page
    assert "<code>loss.beta</code>" in page
    assert page.index("&lt;b&gt;tpo") < page.index('href="npo')  # the best run first
    embedded = page.split('id="charts">')[1].split("</script>")[0]
    assert [chart["name"] for chart in json.loads(embedded)] == ["frontier", "words-0", "words-1"]


def test_the_report_of_several_runs_lies_where_all_of_them_do(tmp_path):
    places = [tmp_path / "a" / "x", tmp_path / "b" / "y"]
    assert comparison.default_place(places) == tmp_path / "report.html"
    assert (
        comparison.default_place([tmp_path / "a" / "x", tmp_path / "a" / "y"])
        == tmp_path / "a" / "report.html"
    )
