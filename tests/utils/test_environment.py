"""What a run stores of the machine and the code that it runs on."""

import json

from tif.utils import environment


def test_the_environment_is_plain_json_with_versions_and_hardware():
    env = environment.describe_environment()
    assert json.loads(json.dumps(env)) == env
    assert env["python"].startswith("3.")
    assert set(env) == {"tif", "commit", "command", "started", "python", "packages", "host"} | {
        "departs_from_tested"
    }
    assert {"torch", "rouge-score"} <= set(env["packages"])


def test_versions_that_were_not_tested_are_recorded(monkeypatch):
    departures = {"transformers": {"installed": "5.26.0", "tested": "5.25.0"}}
    monkeypatch.setattr(environment, "read_departures", lambda: departures)
    assert environment.describe_environment()["departs_from_tested"] == departures


def test_the_commit_is_told_and_missing_outside_a_checkout(monkeypatch):
    monkeypatch.setattr(environment, "__file__", "/proc/runs.py")
    assert environment.read_commit() is None
