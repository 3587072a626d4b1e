"""`loss.forget=tests.slow:lpl`: the LPL term, each call after TIF_TEST_DELAY seconds of sleep (default 0)."""

import dataclasses
import os
import time

from tif.losses import tpo


def _later(*args):
    time.sleep(float(os.environ.get("TIF_TEST_DELAY", "0")))
    return tpo.lpl.value(*args)


lpl = dataclasses.replace(tpo.lpl, value=_later)
