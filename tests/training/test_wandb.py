"""Weights & Biases, offline: the run's config and rows, and no key of an account."""

import json
import pathlib

import pytest

from tests.support.small_run import SMALL, files, rows
from tif import fit


def wandb_rows(folder):
    """Return rows and config of an offline W&B run from its log: LevelDB blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    (path,) = pathlib.Path(folder).glob("wandb/offline-run-*/*.wandb")
    data, at, record, logged, cfg = path.read_bytes(), 7, b"", [], {}
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            parsed, record = wandb_internal_pb2.Record.FromString(record), b""
            if parsed.history.item:
                logged.append(
                    {
                        i.key or "/".join(i.nested_key): json.loads(i.value_json)
                        for i in parsed.history.item
                    }
                )
            cfg |= {
                u.key: json.loads(u.value_json)
                for u in (*parsed.run.config.update, *parsed.config.update)
            }
    return logged, cfg


@pytest.mark.slow
def test_wandb_offline_holds_config_and_metrics_and_no_key_is_written_anywhere(
    tmp_path, monkeypatch
):
    secrets = {
        "WANDB_API_KEY": "0123456789abcdef" * 2 + "deadbeef",
        "HF_TOKEN": "hf_" + "s3cret" * 6,
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_DIR", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    # The target model is made in the same process: its W&B run is another one.
    words = [
        f"run.folder={tmp_path}",
        "run.name=logged",
        "logger.wandb.enabled=true",
        "logger.wandb.offline=true",
    ]
    assert (
        fit.main(
            [*SMALL, *words, "eval.forget_quality=false", "stages.target.trainer.max_epochs=1"]
        )
        == 0
    )
    folder = tmp_path / "logged"
    logged, cfg = wandb_rows(folder)
    expected = rows(folder)
    shown = [
        {k: v for k, v in row.items() if "/" in k and k != "trainer/global_step"} for row in logged
    ]
    wanted = [{k: v for k, v in row.items() if k not in ("epoch", "step")} for row in expected]
    assert [row for row in shown if row] == wanted
    assert [row["epoch"] for row in logged] == [row["epoch"] for row in expected]
    assert cfg["loss"]["beta"] == 0.3
    assert cfg["run"]["name"] == "logged"
    (target,) = tmp_path.glob("stages/target-*[0-9a-f]")
    logged, cfg = wandb_rows(target)
    assert [row["train/loss"] for row in logged] == [row["train/loss"] for row in rows(target)]
    assert cfg["loss"]["forget"] == "ce"
    for path, content in files(tmp_path).items():
        assert not [name for name, value in secrets.items() if value.encode() in content], path


def test_wandb_without_a_login_stops_a_run_before_its_stages(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    words = ["logger.wandb.enabled=true", f"run.folder={tmp_path / 'runs'}"]
    assert fit.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("logger.wandb.enabled: nobody is logged in to W&B; want WANDB_API_KEY")
    assert not (tmp_path / "runs").exists()
