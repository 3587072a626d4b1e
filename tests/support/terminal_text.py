"""What a terminal shows of a table, as text."""

from rich.console import Console


def shown(table, width=200):
    """Return the lines of a table in a terminal of that width, without colours."""
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def cells(line):
    """Return the cells of a line between its borders."""
    return [cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]]
