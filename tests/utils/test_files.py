"""Atomic writes, JSON lines that a kill cut short, a lock that another process holds.

A full disk is in tests/training/test_full_disk.py.
"""

import os
import stat
import threading

import filelock
import pytest

from tests.support.hangs import HANG
from tif.utils import files
from tif.utils.terminal import console


def test_a_write_that_fails_leaves_the_old_content_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left on device") as error:
        files.write_text(path, "new")
    assert error.value.filename == str(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("name", ["file/x.txt", "no/x.txt", "a" * 255])
def test_an_error_names_the_file_that_was_wanted_and_no_temporary_one(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as error:  # noqa: PT011  the class is all that they share
        files.write_text(tmp_path / name, "new")
    assert error.value.filename == str(tmp_path / name)


def test_a_last_json_line_that_was_cut_is_not_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert files.read_json_lines(path) == ([], None)
    files.append_json_lines(path, [{"a": 1}, {"b": "\u2028é"}])
    with path.open("a") as file:
        file.write('{"c": ')
    assert files.read_json_lines(path) == ([{"a": 1}, {"b": "\u2028é"}], None)
    files.write_json_lines(path, [{"d": 0.1 + 0.2}])
    assert path.read_text() == '{"d": 0.30000000000000004}\n'


def test_who_waits_for_another_process_says_so(tmp_path, capsys, monkeypatch):
    path, is_locked, is_shown = tmp_path / "x.lock", threading.Event(), threading.Event()
    show = console.print

    def note(*arguments, **keys):
        show(*arguments, **keys)
        is_shown.set()

    monkeypatch.setattr(console, "print", note)

    def hold():
        with filelock.FileLock(path):
            is_locked.set()
            is_shown.wait(HANG)

    other = threading.Thread(target=hold)
    other.start()
    assert is_locked.wait(HANG)
    with files.locked(path, "stage target"):
        assert capsys.readouterr().out == "stage target: another process is making it, waiting\n"
    other.join()
    with files.locked(path, "stage target"):
        assert capsys.readouterr().out == ""


def test_a_file_gets_the_permissions_of_a_new_one(tmp_path):
    file = tmp_path / "weights"
    file.touch(mode=0o600)
    before = os.umask(0o027)
    try:
        files.use_default_mode(file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]
