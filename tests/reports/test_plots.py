from tests.support.small_run import rows
from tif.reports import plots


def test_the_plots_show_every_evaluation_and_every_step(run, monkeypatch):
    from matplotlib.figure import Figure

    drawn = {}
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: drawn.update({path.name: self}))
    plots.write_plots(run)
    found = rows(run)
    axes = drawn["quality_utility.png"].axes[0]
    evaluated = [r for r in found if "forget/quality" in r]
    assert axes.lines[0].get_ydata().tolist() == [r["forget/quality"] for r in evaluated]
    assert axes.lines[0].get_xdata().tolist() == [r["utility/model"] for r in evaluated]
    assert (axes.get_xlabel(), axes.get_yscale()) == ("model utility", "log")
    training = [r for r in found if "train/loss" in r]
    for axes, part in zip(drawn["losses.png"].axes, ("lpl", "pl", "retain"), strict=True):
        assert axes.lines[0].get_xdata().tolist() == [r["step"] for r in training]
        assert axes.lines[0].get_ydata().tolist() == [r[f"train/{part}"] for r in training]
    assert [axes.get_ylabel() for axes in drawn["losses.png"].axes] == ["LPL", "PL", "retain"]
