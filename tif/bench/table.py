"""The plain table in which every measurement is shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table


def make_plain_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Table:
    """Return a table with a line for each row.

    Args:
        rows: results of a measurement.
        columns: title -> how a cell is made from a row, as "{seconds:.2f}".
    """
    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(cell.format(**row) for cell in columns.values()))
    return table
