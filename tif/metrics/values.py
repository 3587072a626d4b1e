"""Shared by all metrics: the type of their values, their mean, the check for an empty set."""

import numpy as np
import numpy.typing as npt

from tif.records.types import Record, RecordSet

Floats = npt.NDArray[np.float64]


def mean_or_none(values: Floats | None) -> float | None:
    """Return the mean of a metric's values; None where there are none."""
    return None if values is None else float(values.mean())


def require_records(records: RecordSet) -> tuple[Record, ...]:
    """Return the records of a set.

    Raises:
        ValueError: If there are none.
    """
    if not records.records:
        raise ValueError(f"{records.name}: the set has no records")
    return records.records
