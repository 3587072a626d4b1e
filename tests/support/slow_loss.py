"""The LPL term with a sleep before each call: `loss.forget=tests.support.slow_loss:lpl`.

TIF_TEST_DELAY holds the seconds (default 0).
"""

import dataclasses
import os
import time

from tif.losses import FORGET, tpo


def _later(*args):
    time.sleep(float(os.environ.get("TIF_TEST_DELAY", "0")))
    return tpo.lpl.value(*args)


lpl = FORGET["slow_lpl"] = dataclasses.replace(tpo.lpl, name="slow_lpl", value=_later)
