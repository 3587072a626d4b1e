"""The LPL term with a sleep before each call: `loss.forget=tests.support.slow_loss:lpl`.

TIF_TEST_DELAY holds the seconds (default 0). A file that TIF_TEST_BEATS names grows by a byte every
hundredth of a second of it.
"""

import dataclasses
import os
import time

from tif.losses import FORGET, tpo


def _later(*args):
    delay, beats = float(os.environ.get("TIF_TEST_DELAY", "0")), os.environ.get("TIF_TEST_BEATS")
    if beats is None:
        time.sleep(delay)
    else:
        for _ in range(round(100 * delay)):
            with open(beats, "ab") as file:
                file.write(b".")
            time.sleep(0.01)
    return tpo.lpl.value(*args)


lpl = FORGET["slow_lpl"] = dataclasses.replace(tpo.lpl, name="slow_lpl", value=_later)
