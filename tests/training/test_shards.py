"""A checkpoint of shards is read with pickle by torch: what could run code is refused first."""

import json
import os
import pickle
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint import metadata as dcp_metadata

from tests.support.interrupted_runs import run_words
from tests.support.small_run import finished
from tif import fit
from tif.config.errors import ConfigError
from tif.training import checkpoints, run_folders
from tif.training.shards import METADATA, find_danger, read_shards
from tif.utils.files import append_json_lines


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mknod, (self.path,)


@pytest.fixture
def trace(tmp_path):
    return tmp_path / "it-ran"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a checkpoint of shards as torch writes it: tensors of each dtype, and values."""
    folder = tmp_path_factory.mktemp("shards") / "epoch=1-step=2.ckpt"
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8)
    state = {"weights": {str(dtype): torch.ones(2, 3).to(dtype) for dtype in dtypes}}
    state["group"] = {"lr": 0.1, "betas": (0.9, 0.95), "foreach": None, "capturable": False, "decay": torch.tensor(0.5)}
    dcp.save(state, checkpoint_id=str(folder), no_dist=True)
    return folder


@pytest.fixture
def shards(written, tmp_path):
    return shutil.copytree(written, tmp_path / "run" / "checkpoints" / written.name)


def read_metadata(folder):
    with (folder / METADATA).open("rb") as file:
        return pickle.load(file)


def write_metadata(folder, content):
    (folder / METADATA).write_bytes(pickle.dumps(content))


def test_what_torch_writes_passes(shards):
    assert find_danger(shards) is None
    values = [kind for kind in read_metadata(shards).state_dict_metadata.values()]
    assert any(isinstance(kind, dcp_metadata.BytesStorageMetadata) for kind in values)  # read and passed


def test_metadata_that_would_make_a_file_is_refused_and_makes_none(shards, trace):
    content = read_metadata(shards)
    content.planner_data = Touch(trace)
    write_metadata(shards, content)
    assert "it names posix.mknod" in find_danger(shards)
    assert not trace.exists()
    read_metadata(shards)  # that it would have
    assert trace.exists()


def test_a_value_in_a_shard_that_would_make_a_file_is_refused_and_makes_none(shards, trace):
    content = read_metadata(shards)
    index = dcp_metadata.MetadataIndex("group.lr")
    torch.save(Touch(trace), shards / "__1_0.distcp")
    place = content.storage_data[index]
    place.relative_path, place.offset = "__1_0.distcp", 0
    place.length = (shards / "__1_0.distcp").stat().st_size
    write_metadata(shards, content)
    assert "a value in __1_0.distcp is no number, text or tensor" in find_danger(shards)
    assert not trace.exists()
    dcp.load({"group": {"lr": 0.0}}, checkpoint_id=str(shards), no_dist=True)
    assert trace.exists()  # torch runs it


@pytest.mark.parametrize("name", ["../x.distcp", "/etc/passwd", "a/b"])
def test_a_value_outside_of_the_checkpoint_is_refused(shards, name):
    content = read_metadata(shards)
    content.storage_data[dcp_metadata.MetadataIndex("group.lr")].relative_path = name
    write_metadata(shards, content)
    assert f"it places values in {name}" in find_danger(shards)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x80", b"N.", b"(lp0\n.", pickle.dumps({"a": 1}), b"\x80\x04\x95" + b"\xff" * 8,
        b"cos\nsystem\n(S'true'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.", b"ctorch\nload\n.", b"ctorch\nnn.Linear\n.",
        b"ctorch.distributed.checkpoint.metadata\nos.system\n.",
    ],
    ids=range(11),
)  # fmt: skip
def test_metadata_that_is_none_is_refused(shards, content):
    (shards / METADATA).write_bytes(content)
    assert find_danger(shards).startswith(METADATA)


def test_metadata_that_lies_about_its_parts_is_refused(shards):
    for change in ({"state_dict_metadata": [1]}, {"storage_data": None}, {"storage_data": {}}):
        content = read_metadata(shards)
        vars(content).update(change)
        write_metadata(shards, content)
        assert find_danger(shards).startswith(METADATA)


def place_fallback(folder, trace):
    """Make torch's reader fail on `.metadata` and fall back to a file of the rank, which leaves a trace."""
    content = read_metadata(folder)
    content.storage_meta = "x"
    write_metadata(folder, content)
    (folder / "__0.metadata").write_bytes(pickle.dumps(Touch(trace)))


def test_torch_falls_back_to_a_file_that_it_unpickles_and_ours_does_not(shards, trace):
    place_fallback(shards, trace)
    state = {"group": {"lr": 0.0}}
    with pytest.raises(CheckpointException):
        read_shards(state, shards)
    assert not trace.exists()
    with pytest.raises(CheckpointException):
        dcp.load(state, checkpoint_id=str(shards), no_dist=True)
    assert trace.exists()  # torch's own reader runs it


def test_a_value_that_was_swapped_after_the_check_runs_nothing(shards, trace):
    content = read_metadata(shards)
    torch.save(Touch(trace), shards / "__1_0.distcp")
    place = content.storage_data[dcp_metadata.MetadataIndex("group.lr")]
    place.relative_path, place.offset = "__1_0.distcp", 0
    place.length = (shards / "__1_0.distcp").stat().st_size
    write_metadata(shards, content)
    with pytest.raises(CheckpointException):
        read_shards({"group": {"lr": 0.0}}, shards)
    assert not trace.exists()


def test_our_reader_reads_what_torch_wrote(shards):
    state = {"weights": {"torch.float32": torch.zeros(2, 3)}, "group": {"lr": 0.0, "betas": (0.0, 0.0)}}
    read_shards(state, shards)
    assert torch.equal(state["weights"]["torch.float32"], torch.ones(2, 3))
    assert state["group"] == {"lr": 0.1, "betas": (0.9, 0.95)}


@pytest.mark.parametrize("name", ["__0.metadata", "__1.metadata", "x.py", "__0_0.distcp.bak", "folder/x"])
def test_files_that_no_checkpoint_of_ours_has_are_refused(shards, name):
    (shards / name).parent.mkdir(exist_ok=True)
    (shards / name).write_bytes(b"")
    assert find_danger(shards) == f"it holds {name.partition('/')[0]}, which no checkpoint of tif has"


def first(table):
    return next(iter(table.values()))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: setattr(content, "storage_meta", "x"),
        lambda content: setattr(content, "storage_meta", 1),
        lambda content: setattr(content, "storage_meta", []),
        lambda content: setattr(content, "state_dict_metadata", "x"),
        lambda content: content.state_dict_metadata.update({1: first(content.state_dict_metadata)}),
        lambda content: content.state_dict_metadata.update(x="x"),
        lambda content: setattr(first(content.state_dict_metadata), "size", 3),
        lambda content: setattr(first(content.state_dict_metadata), "size", ["a"]),
        lambda content: setattr(first(content.state_dict_metadata), "chunks", None),
        lambda content: setattr(first(content.state_dict_metadata), "chunks", ["x"]),
        lambda content: setattr(first(content.state_dict_metadata).chunks[0], "offsets", "x"),
        lambda content: setattr(first(content.state_dict_metadata).properties, "dtype", "x"),
        lambda content: content.storage_data.update(x="x"),
        lambda content: setattr(first(content.storage_data), "offset", "x"),
        lambda content: setattr(first(content.storage_data), "length", -1),
        lambda content: setattr(first(content.storage_data), "relative_path", "/dev/zero"),
        lambda content: setattr(first(content.storage_data), "transform_descriptors", ["zstd"]),
    ],
    ids=range(17),
)
def test_each_field_that_torch_reads_must_be_of_its_kind(shards, change):
    content = read_metadata(shards)
    change(content)
    write_metadata(shards, content)
    assert find_danger(shards).startswith(METADATA)


def test_metadata_that_changes_a_class_changes_none_of_torchs(shards):
    # BUILD on a class sets its attributes for the whole process.
    (shards / METADATA).write_bytes(b"ctorch.distributed.checkpoint.metadata\nMetadata\n(N}Vversion\nVx\nstb.")
    assert find_danger(shards).startswith(METADATA)
    assert dcp_metadata.Metadata.version is None


def test_a_foreign_run_folder_is_refused_with_one_line(shards, trace):
    run = shards.parent.parent
    (run / run_folders.CONFIG).write_text("")
    append_json_lines(run / "metrics.jsonl", [{"epoch": 1, "step": step, "train/loss": 1.0} for step in (0, 1)])
    torch.save({"global_step": 2, "callbacks": {"Checkpoints": {}}}, shards / "meta.pt")
    content = read_metadata(shards)
    content.planner_data = Touch(trace)
    write_metadata(shards, content)
    (shards / checkpoints.SIZES).write_text(json.dumps({p.name: p.stat().st_size for p in shards.iterdir()}))
    identity = run_folders.RunIdentity("", "", 1)
    for call, *arguments in (
        (run_folders.check_checkpoint, shards), (run_folders.find_newest_checkpoint, run, identity)
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            call(*arguments)
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"run.resume: {shards} holds more than weights and numbers, and could run code (.meta")
        assert line.endswith("delete it, or give run.resume=never")
    assert not trace.exists()


@pytest.mark.slow
def test_a_run_in_shards_passes_and_goes_on(tmp_path_factory):
    parent = finished(tmp_path_factory).runs
    words = run_words(parent, "shards", "trainer.strategy=fsdp2", "eval.enabled=false", "run.export=false")
    assert fit.main(words) == 0
    newest, older = checkpoints.list_checkpoints(parent / "shards" / "checkpoints")
    assert [find_danger(path) for path in (newest, older)] == [None, None]
    (parent / "shards" / run_folders.DONE).unlink()
    assert fit.main(words) == 0
