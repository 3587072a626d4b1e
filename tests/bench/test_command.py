"""tif bench: wrong input, and the process and the counter of memory that all work uses.

How fast things are is no test's business.
"""

import os

import pytest
import torch

from tif.bench import command as bench
from tif.bench.process import PeakMemory, run_alone
from tif.bench.settings import BenchSettings

NEEDS_LINUX = pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["what=speed"], "what: want one of step, memory, got 'speed'"),
        (["sample=5"], "sample: unknown key; did you mean samples?"),
        (["model.path=./no"], "model.path: no folder ./no"),
        (["batch_sizes=[4,200]"], "batch_sizes: want sizes of 1 to samples=64, got [4, 200]"),
        (["what=memory", "model.path=./no"], "model.path: no folder ./no"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(capsys, words, line):
    assert bench.main(words) == 2
    (actual,) = capsys.readouterr().err.splitlines()
    assert actual.startswith(line)


def test_a_measurement_has_a_process_of_its_own():
    assert run_alone(os.getpid) not in (0, os.getpid())


@NEEDS_LINUX
def test_memory_is_counted_above_what_was_held_and_after_the_restart():
    held = torch.ones(4_000_000)
    memory = PeakMemory("cpu")
    gone = torch.ones(40_000_000)  # 160 MB
    del gone
    memory.restart()
    work = torch.ones(20_000_000)  # 80 MB
    assert 70 < memory.peak_mb() < 120
    assert held.sum() + work.sum() == 24_000_000


def read_kind(settings):
    """Return the kind of identifier in the settings that a process gets."""
    return settings.identifier.kind


def test_settings_reach_the_process_that_measures():
    settings = BenchSettings()
    settings.identifier.kind = "all"
    assert run_alone(read_kind, settings) == "all"
