"""Read offline runs of W&B back from their logs: LevelDB blocks of 32 KiB, a record each."""

import dataclasses
import json
import pathlib
from typing import Any

BLOCK = 32768


@dataclasses.dataclass
class OfflineRun:
    """What an offline run holds: its labels, configuration, rows, summary, axes and artifacts."""

    folder: pathlib.Path
    run: Any = None
    config: dict = dataclasses.field(default_factory=dict)
    rows: list[dict] = dataclasses.field(default_factory=list)
    summary: dict = dataclasses.field(default_factory=dict)
    metrics: dict = dataclasses.field(default_factory=dict)
    artifacts: list = dataclasses.field(default_factory=list)
    kinds: set = dataclasses.field(default_factory=set)

    def named(self, start):
        """Return the artifacts whose names start so."""
        return [artifact for artifact in self.artifacts if artifact.name.startswith(start)]

    def files(self, start):
        """Return the manifest of the artifact whose name starts so: path -> reference or file."""
        (artifact,) = self.named(start)
        return {entry.path: entry.ref or entry.local_path for entry in artifact.manifest.contents}

    def tables(self):
        """Return the tables of samples by the epoch of their row."""
        result = {}
        for row in self.rows:
            if "samples/path" in row:
                result[row["epoch"]] = json.loads(
                    (self.folder / "files" / row["samples/path"]).read_text()
                )
        return result


def offline_runs(folder):
    """Return the folders of the offline runs below a folder's wandb/."""
    return sorted(pathlib.Path(folder).glob("wandb/offline-run-*"))


def read_offline_run(folder):
    """Return the only offline run of a folder."""
    import wandb

    wandb.teardown()  # whose service may still be writing; it also forgets the environment's key
    (path,) = offline_runs(folder)
    (log,) = path.glob("*.wandb")
    offline = OfflineRun(path)
    for record in _records(log.read_bytes()):
        kind = record.WhichOneof("record_type")
        offline.kinds.add(kind)
        if kind == "run":
            offline.run = record.run
            offline.config |= _values(record.run.config.update)
        elif kind == "config":
            offline.config |= _values(record.config.update)
        elif kind == "history":
            offline.rows.append(_values(record.history.item))
        elif kind == "summary":
            offline.summary |= _values(record.summary.update)
        elif kind == "metric" and record.metric.name:
            offline.metrics[record.metric.name] = record.metric
        elif kind == "artifact":
            offline.artifacts.append(record.artifact)
    return offline


def _values(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data):
    from wandb.proto import wandb_internal_pb2

    at, content = 7, b""
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        content += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(content)
            content = b""
