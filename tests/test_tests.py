"""Rules of the tests themselves: none judges by the clock how long something took."""

import pathlib
import threading

import pytest

from tests.support.hangs import Hanging, count_calls, no_hang, wait_until
from tests.support.measured_times import find_limits, list_attributes

TESTS = pathlib.Path(__file__).parent
HELPER = TESTS / "support" / "hangs.py"
LIMITS = [
    "import time\nstart = time.monotonic()\nwork()\nassert time.monotonic() - start < 3",
    "import time\nstart = time.time()\nwork()\nseconds = time.time() - start\nassert 2 > seconds",
    "from time import perf_counter as now\nstart = now()\nassert round(now() - start) <= LIMIT",
    "import time as t\nwhile not is_done() and t.process_time() < end:\n    pass",
    "import time\ntimes = []\ntimes.append(time.monotonic_ns())\na, b = times\nassert b - a >= 1.5",
    "import time\ndef f(self):\n    self.start = time.time()\ndef g(self):\n"
    "    if self.start < 9:\n        fail()",
    "import time\nassert max(time.time() - start, 0) == pytest.approx(1)",
    "import subprocess\nsubprocess.run(words, timeout=5)",
    "assert is_ready.wait(10)",
]
NO_LIMITS = [
    "import time\nstart = time.monotonic()\nprint(time.monotonic() - start)",
    "import time\nmonkeypatch.setattr(module.time, 'monotonic', lambda: 3)\nassert calls < 3",
    "import time\ntimes = [time.time()]\nassert len(times) == 1",
    "row = measure()\nassert row['seconds'] > 0",
    "import time\nassert time.strftime('%Y') < '3000'",
    "lock.acquire(timeout=0)\nprocess.wait(HANG)\nsubprocess.run(words, timeout=300)",
    "def time():\n    return 3\nassert time() < 5",
]


@pytest.mark.parametrize("source", LIMITS)
def test_a_measured_time_that_is_compared_is_seen(source):
    assert find_limits(source) != []


@pytest.mark.parametrize("source", NO_LIMITS)
def test_what_compares_no_measured_time_passes(source):
    assert find_limits(source) == []


def test_a_time_that_another_file_measured_is_seen_by_its_attribute():
    stub = "import time\ndef answer(self):\n    self.stub.times.append(time.monotonic())"
    assert list_attributes(stub) == {".times"}
    source = "first, second = server.times\nassert second - first >= 1.5"
    assert find_limits(source) == []
    assert find_limits(source, {".times"}) == [2]


def test_no_test_asserts_how_long_something_took():
    paths = sorted(path for path in TESTS.rglob("*.py") if path != HELPER)
    sources = {path: path.read_text(encoding="utf-8") for path in paths}
    attributes = set()
    for source in sources.values():
        attributes |= list_attributes(source)
    offenders = []
    for path, source in sources.items():
        lines = find_limits(source, attributes)
        offenders += [f"{path.relative_to(TESTS)}:{line}" for line in lines]
    assert offenders == []


def test_what_hangs_is_ended():
    with pytest.raises(Hanging), no_hang(0.05):
        threading.Event().wait()
    with pytest.raises(Hanging, match="in vain: 7 of 9"):
        wait_until(lambda: False, lambda: "7 of 9", 0.05)


def test_calls_are_counted():
    assert count_calls(list.append, [], 1) == count_calls(len, "") > 0
    assert count_calls(lambda: [abs(n) for n in range(50)]) - count_calls(lambda: None) > 50
