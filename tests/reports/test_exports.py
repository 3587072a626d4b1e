import csv
import io

import pytest

from tif.reports import exports


def numbers(quality, utility, sd=None, epoch=5.0):
    values = {
        "forget/quality": quality,
        "utility/model": utility,
        "epoch": epoch,
        "eval/score": utility,
    }
    return {name: {"mean": value, "sd": sd, "values": [value]} for name, value in values.items()}


RESULTS = {
    "runs": {
        "a_b & c": {
            "seeds": 2,
            "best": numbers(1.9e-4, 0.5, 2.3e-4, 4.0),
            "last": numbers(0.25, 0.5, 0.125),
            "steps": [{"planned": 60, "made": 60}] * 2,
        },
        "=cmd()": {
            "seeds": 1,
            "best": numbers(0.5, 0.75),
            "last": numbers(0.5, 0.75),
            "steps": [{"planned": 60, "made": 40}],
        },
    },
    "before": {"forget/quality": 1e-20, "utility/model": 0.9},
    "retain_model": {"utility/model": 0.8},
    "models": {"before": 1, "retain_model": 1},
}


def test_the_latex_table_has_formulas_and_no_special_character_of_a_name():
    expected = [
        r"\begin{tabular}{llllrr}",
        r"\toprule",
        r"run & epoch & seeds & steps & forget quality $\uparrow$ & model utility $\uparrow$ \\",
        r"\midrule",
        r"=cmd() & last (5) & 1 & 40 of 60 & $0.500$ & $0.750$ \\",
        (
            r"a\_b \& c & best (4) & 2 & 60 & $1.9 \cdot 10^{-4} \pm 2 \cdot 10^{-4}$ "
            r"& $0.500 \pm 2 \cdot 10^{-4}$ \\"
        ),
        r"a\_b \& c & last (5) & 2 & 60 & $0.250 \pm 0.125$ & $0.500 \pm 0.125$ \\",
        r"\midrule",
        r"before & -- & -- & -- & $1.0 \cdot 10^{-20}$ & $0.900$ \\",
        r"retain model & -- & -- & -- & -- & $0.800$ \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert exports.as_latex(RESULTS).splitlines() == expected


def test_the_csv_has_all_digits_and_no_formula():
    lines = list(csv.reader(io.StringIO(exports.as_csv(RESULTS))))
    assert lines[0] == ["run", "epoch", "seeds", "forget/quality", "forget/quality sd",
                        "utility/model", "utility/model sd"]  # fmt: skip
    assert lines[1] == ["'=cmd()", "best", "1", "0.5", "", "0.75", ""]
    assert lines[3] == ["a_b & c", "best", "2", "0.00019", "0.00023", "0.5", "0.00023"]
    assert lines[5] == ["before", "", "", "1e-20", "", "0.9", ""]
    assert lines[6] == ["retain model", "", "", "", "", "0.8", ""]


def test_the_markdown_table_is_the_one_of_a_sweep():
    lines = exports.as_markdown(RESULTS).splitlines()
    assert lines[0] == "| run | epoch | seeds | steps | forget quality ↑ | model utility ↑ |"
    assert lines[3] == r"| a_b \& c | best (4) | 2 | 60 | 1.9e-04 ± 2e-04 | 0.500 ± 2e-04 |"


@pytest.mark.parametrize("character", list("&%$#_{}~^\\"))
def test_every_special_character_of_latex_is_escaped(character):
    text = exports._latex_text(character)
    assert text != character
    assert text.startswith("\\")
