"""A cache of the Hugging Face hub, as huggingface_hub lays it out: blobs, snapshots, refs."""

import hashlib
import json
import pathlib
import shutil

REVISION = "0123456789abcdef0123456789abcdef01234567"


def use(monkeypatch, folder):
    """Let huggingface_hub and datasets find their caches in a folder; return that of the hub."""
    import datasets
    import huggingface_hub

    hub = pathlib.Path(folder) / "hub"
    hub.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", pathlib.Path(folder) / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return hub


def add(cache, name, source, kind="model"):
    """Add a model or data set ("dataset") whose files are those of a folder, as if downloaded."""
    repository = pathlib.Path(cache) / f"{kind}s--{name.replace('/', '--')}"
    snapshot, blobs = repository / "snapshots" / REVISION, repository / "blobs"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(REVISION)
    blobs.mkdir(exist_ok=True)
    for file in sorted(path for path in pathlib.Path(source).rglob("*") if path.is_file()):
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        link = snapshot / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        depth = len(link.relative_to(repository).parts) - 1
        link.symlink_to(pathlib.Path("../" * depth) / "blobs" / blob.name)
    return snapshot


def write_tofu_card(folder, names):
    """Write the README.md of locuslab/TOFU: each config is a JSON file of its name."""
    lines = ["---", "configs:"]
    for name in names:
        lines += [f"- config_name: {name}", f"  data_files: {name}.json"]
    (pathlib.Path(folder) / "README.md").write_text("\n".join([*lines, "---", "# TOFU", ""]))


def write_muse_data_set(folder, files):
    """Write rows by "subset/split" as parquet files, with the README.md of muse-bench/MUSE-News."""
    import datasets

    folder = pathlib.Path(folder)
    lines = ["---", "configs:"]
    for subset in dict.fromkeys(name.split("/")[0] for name in files):
        lines += [f"- config_name: {subset}", "  data_files:"]
        for name in files:
            if name.startswith(f"{subset}/"):
                split = name.split("/")[1]
                lines += [f"  - split: {split}", f"    path: {name}-*"]
                path = folder / f"{name}-00000-of-00001.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                rows = [row if isinstance(row, dict) else {"text": row} for row in files[name]]
                datasets.Dataset.from_list(rows).to_parquet(str(path))
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


def write_json_lines(path, rows):
    """Write one row a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
