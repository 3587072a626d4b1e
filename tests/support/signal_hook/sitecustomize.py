"""Loaded by every Python whose PYTHONPATH names this folder: a signal at a chosen moment.

TIF_TEST_SIGNAL = "<audit event>|<text in its first argument>|<signal>|<events until it comes>".
"""

import os
import sys

_moment = os.environ.pop("TIF_TEST_SIGNAL", None)  # not for the processes that this one starts
if _moment:
    _event, _text, _number, _count = _moment.split("|")
    _left = [int(_count)]

    def _signal(event, args):
        if _left[0] > 0 and event == _event and args and _text in str(args[0]):
            _left[0] -= 1
            if _left[0] == 0:
                os.kill(os.getpid(), int(_number))

    sys.addaudithook(_signal)
