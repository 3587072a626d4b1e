"""Show finished runs again: metrics, answers before and after, plots.

    tif report RUN [RUN ...]

RUN is a run folder, as runs/quickstart. The tables go to the terminal. report.html (curves, epochs,
every sample token by token) and the plots (quality_utility.png, losses.png) are written to the
folder again.
Exit code: 0 done, 1 a plot could not be written, 2 a folder is no run folder, or a file in it is
damaged (one line with its name and what to delete).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from tif.records.metrics_log import FILE_NAME
from tif.reports.html.run_report import write_run_report
from tif.reports.plots import write_plots
from tif.reports.run_tables import show_run
from tif.utils import command_line
from tif.utils.files import DamagedFile
from tif.utils.terminal import console


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or {"-h", "--help"} & set(words):
        print(__doc__)
        return 0 if words else 2
    for word in words:
        folder = Path(word)
        try:
            if not (folder / FILE_NAME).exists():
                hint = "".join(f"; want {run}" for run in _list_runs(folder)[:3])
                command_line.print_error(f"{word}: no run folder (no {FILE_NAME} in it){hint}")
                return 2
            write_plots(folder)
            path = write_run_report(folder)
            show_run(folder)
            console.print(f"report: {path}", soft_wrap=True)
        except DamagedFile as error:
            command_line.print_error(error)
            return 2
        except Exception as error:
            return command_line.report_os_error(error, "the same command tries again")
    return 0


def _list_runs(folder: Path) -> list[Path]:
    """Return the run folders in a folder, the newest first."""
    files = sorted(folder.glob(f"*/{FILE_NAME}"), key=lambda file: -file.lstat().st_mtime)
    return [file.parent for file in files]


if __name__ == "__main__":
    command_line.run_main(main)
