import json

import pytest

from tests.support.report_runs import write_run
from tif.reports.html.audit_section import read_audit_section
from tif.reports.html.run_report import write_run_report
from tif.utils.files import DamagedFile

ROW = {"measure": "hits", "target": 0.9, "unlearned": 0.5, "retain": 0.1, "leak": 0.5, "interval": [0.4, 0.6]}
CONTENT = {"attacks": {"relearn": {"headline": "hits", "action": "<b>relearning</b>", "rows": [ROW], "curves": {}}}}


@pytest.fixture
def run(tmp_path):
    rows = [{"forget/quality": 1e-3, "utility/model": 0.5}, {"forget/quality": 0.1, "utility/model": 0.4}]
    return write_run(tmp_path / "run", epochs=2, metrics=rows)


def test_a_run_without_an_audit_has_no_such_section(run):
    assert read_audit_section(run) is None
    assert 'id="audit"' not in write_run_report(run)[0].read_text()


def test_the_verdicts_and_numbers_of_an_audit_are_shown_as_text(run):
    (run / "audit").mkdir()
    (run / "audit" / "audit.json").write_text(json.dumps(CONTENT))
    page = write_run_report(run)[0].read_text()
    section = page.split('id="audit"')[1].split("</section>")[0]
    assert "&lt;b&gt;relearning&lt;/b&gt; gives back 50%" in section
    assert "<b>relearning" not in page
    for text in ("relearn: hits", "0.900", "0.500", "0.100", "0.400 – 0.600"):
        assert text in section
    assert 'href="#audit"' in page


@pytest.mark.parametrize("content", ["{", "{}", '{"attacks": {"a": 3}}'])
def test_a_damaged_audit_is_one_line_that_names_it(run, content):
    (run / "audit").mkdir()
    (run / "audit" / "audit.json").write_text(content)
    with pytest.raises(DamagedFile, match="audit.json") as error:
        write_run_report(run)
    assert "delete" in str(error.value)
    assert "\n" not in str(error.value)
