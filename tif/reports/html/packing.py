"""Numbers of tokens as short texts: two characters hold a log-probability to 0.4 % and a mark.

samples.js unpacks them. A report with 4,000 answers at 20 epochs stays below 10 MB this way.
"""

import string
from collections.abc import Sequence

import numpy as np

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
SMALLEST, LARGEST, STEPS = 0.01, 60.0, 2047  # nats; below, the scale is nearly linear
_CHARACTERS = np.array(list(ALPHABET))


def pack(logprobs: Sequence[float], top: Sequence[bool]) -> str:
    """Return two characters for each token: its log-probability, and whether it is the argmax.

    The 11 bits of the log-probability count steps of log(1 + nats / SMALLEST).
    """
    nats = np.clip(-np.asarray(logprobs, dtype=np.float64), 0, LARGEST)
    scaled = np.log1p(nats / SMALLEST) / np.log1p(LARGEST / SMALLEST)
    codes = np.rint(scaled * STEPS).astype(np.int64) * 2 + np.asarray(top, dtype=np.int64)
    pairs = np.stack([codes >> 6, codes & 63], axis=1)
    return "".join(_CHARACTERS[pairs.ravel()].tolist())


def unpack(text: str) -> tuple[list[float], list[bool]]:
    """Return the log-probabilities and marks of a packed text."""
    places = [ALPHABET.index(character) for character in text]
    codes = [high * 64 + low for high, low in zip(places[::2], places[1::2], strict=True)]
    scale = np.log1p(LARGEST / SMALLEST) / STEPS
    logprobs = [-SMALLEST * float(np.expm1((code >> 1) * scale)) for code in codes]
    return logprobs, [bool(code & 1) for code in codes]
