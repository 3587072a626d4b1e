"""An attack is one file: what it registers is what keys, help, table and page of an audit show."""

import json

import pytest

import tif.audit.attacks
from tests.support import attacked
from tests.support.new_files import put_into_room
from tests.support.report_runs import write_run
from tif.audit import command, results, tables
from tif.audit.keys import make_settings
from tif.audit.page_section import write_report
from tif.config import registry

FILE = '''
"""Hints: the questions with some hints before them."""

import dataclasses

from tif.audit.attack import AttackResult, attack
from tif.config.keys import key


@dataclasses.dataclass
class Hints:
    """Questions with a hint."""

    count: int = key(2, "hints before the question", at_least=1)


@attack(
    "hint", keys=Hints, headline=lambda settings: "facts", axis="hints",
    action=lambda settings: f"giving {settings.keys_of(Hints).count} hints",
)
def run(subject, inputs):
    """Return what a model says after some hints."""
    value = {"target": 1.0, "unlearned": 0.5, "retain": 0.0}[subject.role]
    ids = [sample.id for sample in inputs.forget_questions()]
    count = inputs.settings.keys_of(Hints).count
    return AttackResult(
        ids, {"facts": [value] * len(ids)}, {"facts": [(1.0, value), (count, value)]}
    )
'''


@pytest.fixture
def hint(tmp_path, monkeypatch):
    with put_into_room(monkeypatch, tmp_path, tif.audit.attacks, "hints", FILE):
        yield registry.entries("attack")["hint"]


def attack_all(hint, count):
    """Return the content of audit.json of three models."""
    model = attacked.tiny_llama(attacked.word_tokenizer())
    inputs = attacked.inputs(attacks=["hint"], hint=hint.keys(count))
    outcomes = {}
    for role in tables.ROLES:
        subject = inputs.subjects[role] = attacked.subject(model, role=role)
        outcomes[role] = hint(subject, inputs)
    return results.summarize_audit(inputs, {"hint": outcomes})


def test_an_attack_registered_in_one_file_is_in_the_table_and_on_the_page(hint, tmp_path):
    content = attack_all(hint, 3)
    assert content["settings"] == {"hint": {"count": 3}}
    assert tables.audit_lines(content, "hint")[0][:5] == [
        "hint: facts",
        "1.000",
        "0.500",
        "0.000",
        "0.500",
    ]
    run = write_run(tmp_path / "run")
    (run / "audit").mkdir()
    tables.write_page(run / "audit", content)
    page = (run / "audit" / "audit.md").read_text()
    assert "hint: giving 3 hints gives back 50 %" in page
    assert (run / "audit" / "hint.png").is_file()
    (run / "audit" / "audit.json").write_text(json.dumps(content))
    report = write_report(run)[0].read_text()
    assert "hint: giving 3 hints gives back 50" in report
    assert 'data-chart="audit-hint-0"' in report


def test_an_attack_registered_in_one_file_is_made_by_default_and_is_in_the_help(hint, capsys):
    assert "hint" in make_settings().attacks
    assert command.main(["--help", "hint"]) == 0
    shown = capsys.readouterr().out
    assert "hint.count" in shown
    assert "hints before the question" in shown
