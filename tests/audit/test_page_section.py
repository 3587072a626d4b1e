import json

import pytest

from tests.support.report_runs import write_run
from tif.audit import tables as audit
from tif.audit.page_section import read_audit_section, refresh_report, write_report
from tif.utils.files import DamagedFile

ROW = {
    "measure": "hits",
    "target": 0.9,
    "unlearned": 0.5,
    "retain": 0.1,
    "leak": 0.5,
    "interval": [0.4, 0.6],
}
POINTS = {
    "target": [[0, 0.9], [20, 1.0]],
    "unlearned": [[0, 0.2], [20, 0.6]],
    "retain": [[0, 0.1], [20, 0.3]],
}
CURVES = {}
for role, points in POINTS.items():
    CURVES[role] = {"10 % of it, facts stated": points, "10 % of it, ROUGE-L": points}
RELEARN = {
    "headline": "10 % of it, facts stated", "action": "relearning", "axis": "steps",
    "curves": CURVES, "rows": [ROW | {"measure": "10 % of it, facts stated"}],
}  # fmt: skip
CONTENT = {
    "attacks": {
        "relearn": {"headline": "hits", "action": "<b>relearning</b>", "rows": [ROW], "curves": {}}
    }
}


@pytest.fixture
def run(tmp_path):
    rows = [
        {"forget/quality": 1e-3, "utility/model": 0.5},
        {"forget/quality": 0.1, "utility/model": 0.4},
    ]
    return write_run(tmp_path / "run", epochs=2, metrics=rows)


def test_a_run_without_an_audit_has_no_such_section(run):
    assert read_audit_section(run) is None
    assert 'id="audit"' not in write_report(run)[0].read_text()


def test_the_verdicts_and_numbers_of_an_audit_are_shown_as_text(run):
    (run / "audit").mkdir()
    (run / "audit" / "audit.json").write_text(json.dumps(CONTENT))
    page = write_report(run)[0].read_text()
    section = page.split('id="audit"')[1].split("</section>")[0]
    assert "&lt;b&gt;relearning&lt;/b&gt; gives back 50\u00a0%" in section
    assert "<b>relearning" not in page
    for text in ("relearn: hits", "0.900", "0.500", "0.100", "0.400 – 0.600"):
        assert text in section
    assert 'href="#audit"' in page


def test_a_page_has_one_kind_of_minus_and_of_percent(run):
    (run / "audit").mkdir()
    row = ROW | {"leak": -0.134, "interval": [-0.304, -1.2e-4]}
    attack = {
        "headline": "hits",
        "action": "seeing 10 % in nf4 of Llama-3",
        "rows": [row],
        "curves": {},
    }
    (run / "audit" / "audit.json").write_text(json.dumps({"attacks": {"relearn": attack}}))
    section = write_report(run)[0].read_text().split('id="audit"')[1].split("</section>")[0]
    got = (
        "seeing 10\u00a0% in nf4 of Llama-3 gives nothing back of what only the target model knows"
    )
    got += " (leak −13\u00a0%, −30\u00a0% to 0\u00a0%): no more than the retain model yields"
    assert got in section
    for cell in ("<td>−0.134</td>", "<td>−0.304 – −1.2 × 10⁻⁴</td>"):
        assert cell in section


def test_the_curves_of_an_audit_are_charts_and_those_of_other_measures_are_folded(run):
    (run / "audit").mkdir()
    (run / "audit" / "audit.json").write_text(json.dumps({"attacks": {"relearn": RELEARN}}))
    path, charts = write_report(run)
    facts, rouge = [chart for chart in charts if chart.name.startswith("audit-")]
    assert (facts.title, rouge.title) == ("10 % of it", "10 % of it, ROUGE-L")
    lines = [(line.name, line.x, line.y, line.style) for line in facts.series]
    assert lines == [
        ("target", (0, 20), (0.9, 1.0), "line"),
        ("unlearned", (0, 20), (0.2, 0.6), "line"),
        ("retain model", (0, 20), (0.1, 0.3), "dashed"),
    ]
    assert facts.x == "steps"
    section = path.read_text().split('id="audit"')[1].split("</section>")[0]
    shown, folded, _ = section.split("<details>")
    assert f'data-chart="{facts.name}"' in shown
    assert "relearn: facts stated" in shown
    assert f'data-chart="{rouge.name}"' in folded


def test_a_chart_that_stands_alone_has_one_heading_and_no_empty_legend(run):
    (run / "audit").mkdir()
    curves = {role: {"facts stated": points} for role, points in POINTS.items()}
    sample = RELEARN | {"headline": "facts stated, 20 draws", "curves": curves, "axis": "k answers"}
    sample["rows"] = [ROW | {"measure": sample["headline"]}]
    (run / "audit" / "audit.json").write_text(json.dumps({"attacks": {"sample": sample}}))
    path, charts = write_report(run)
    (chart,) = [chart for chart in charts if chart.name.startswith("audit-")]
    assert chart.title == "sample: facts stated"
    section = path.read_text().split('id="audit"')[1].split("</section>")[0]
    assert section.count("<h3") == 1
    assert '<div class="legend">' not in section


@pytest.mark.parametrize("leak", [-1.0, -0.13, -0.006])
def test_nothing_is_given_back_where_the_leak_is_below_zero(leak):
    row = ROW | {"leak": leak, "interval": None}
    verdict = audit.describe_leak(row, "relearning")
    assert verdict.startswith(
        "relearning gives nothing back of what only the target model knows (leak -"
    )
    assert "gives back" not in verdict


def test_an_audits_page_has_a_picture_of_its_curves(tmp_path):
    models = {"target": "t", "unlearned": "u", "retain": "r"}
    audit.write_page(tmp_path, {"models": models, "attacks": {"relearn": RELEARN}})
    assert "![relearn](relearn.png)" in (tmp_path / "audit.md").read_text()
    assert (tmp_path / "relearn.png").read_bytes().startswith(b"\x89PNG")


def test_an_audit_writes_the_report_of_its_run_again(run):
    refresh_report(run)
    assert not (run / "report.html").exists()  # there was none
    write_report(run)
    (run / "audit").mkdir()
    (run / "audit" / "audit.json").write_text(json.dumps({"attacks": {"relearn": RELEARN}}))
    refresh_report(run)
    assert 'id="audit"' in (run / "report.html").read_text()


@pytest.mark.parametrize("content", ["{", "{}", '{"attacks": {"a": 3}}'])
def test_a_damaged_audit_is_one_line_that_names_it(run, content):
    (run / "audit").mkdir()
    (run / "audit" / "audit.json").write_text(content)
    with pytest.raises(DamagedFile, match="audit.json") as error:
        write_report(run)
    assert "delete" in str(error.value)
    assert "\n" not in str(error.value)
