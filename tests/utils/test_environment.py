"""What a run stores of the machine and the code that it runs on."""

import json

from tif.utils import environment


def test_the_environment_is_plain_json_with_versions_and_hardware():
    env = environment.describe_environment()
    assert json.loads(json.dumps(env)) == env
    assert env["python"].startswith("3.")
    assert set(env) == {"tif", "commit", "command", "started", "python", "packages", "host"}


def test_the_commit_is_told_and_missing_outside_a_checkout(monkeypatch):
    monkeypatch.setattr(environment, "__file__", "/proc/runs.py")
    assert environment.read_commit() is None
