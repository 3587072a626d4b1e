"""tif report: tables, report.html, comparison and exports of finished runs.

    tif report RUN [RUN ...] [out=FILE] [options]

RUN is a run folder, as runs/quickstart, or the folder of a sweep, which stands for its runs.
One run: its tables go to the terminal, and its report.html (curves, epochs, every sample token by
token) is written again. Several runs: a table of them goes to the terminal, and a report.html that
compares them into the folder that holds them all. out=FILE puts the report elsewhere.

    tif report runs/quickstart
    tif report runs/a runs/b out=a-and-b.html
    tif report runs/methods_quickstart --latex > table.tex

    --markdown, --latex, --csv   print the table of the runs and write nothing: mean and deviation
                                 over seeds at the best and the last epoch; LaTeX needs booktabs
    --figures                    also write the charts as SVG and PNG files, into figures/ beside
                                 the report

JSON: {"runs": {folder: its epochs, intervals and steps}, "table": means and deviations over seeds}.
"""

import os
import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tif.audit.page_section import write_report
from tif.config.command import Command
from tif.records.metrics_log import FILE_NAME
from tif.reports import exports
from tif.reports.html.comparison import default_place, write_comparison
from tif.reports.html.comparison_data import collect, find_runs, group_runs
from tif.reports.run_tables import show_run
from tif.reports.summary import read_numbers
from tif.reports.sweep import show_table
from tif.utils.files import DamagedFile
from tif.utils.terminal import console


def report(options: Namespace) -> Any:
    """Show the runs that the words name; return the content of `--json`."""
    folders = _find_folders(options.words)
    formats = [flag for flag in exports.FORMATS if getattr(options, flag.strip("-"))]
    if options.json:
        runs = {str(folder): read_numbers(folder) for folder in folders}
        return {"runs": runs, "table": collect(group_runs(folders))}
    if formats:
        results = collect(group_runs(folders))
        print("\n".join(exports.FORMATS[flag](results) for flag in formats), end="")
        return None
    out = Path(options.out) if options.out else None
    if len(folders) == 1:
        page, charts = write_report(folders[0], out)
        show_run(folders[0])
    else:
        page, words = out or default_place(folders), options.words
        title = Path(words[0]).resolve().name if len(words) == 1 else f"{len(folders)} runs"
        charts = write_comparison(folders, page, title)
        show_table(collect(group_runs(folders)))
    path = os.path.relpath(page) if page.is_relative_to(Path.cwd()) else str(page)
    if out or len(folders) > 1:  # else the run's tables name it
        console.print(f"see it: open {shlex.quote(path)}", soft_wrap=True)
    if options.figures:
        from tif.reports.html.figures import FOLDER, write_figures

        folder = Path(path).parent / FOLDER
        count = len(write_figures(folder, charts))
        console.print(f"figures: {folder} ({count} files)", soft_wrap=True)
    return None


def _find_folders(words: Sequence[str]) -> list[Path]:
    """Return the run folders that the words name, each once.

    Raises:
        DamagedFile: If one is no run folder; one line.
    """
    folders: list[Path] = []
    for word in words:
        folder = Path(word)
        runs = [folder] if (folder / FILE_NAME).exists() else find_runs(folder)
        if not runs:
            files = sorted(folder.glob(f"*/{FILE_NAME}"), key=lambda file: -file.lstat().st_mtime)
            hint = "".join(f"; want {file.parent}" for file in files[:3])
            raise DamagedFile(f"{word}: no run folder (no {FILE_NAME} in it){hint}")
        folders += runs
    return list(dict.fromkeys(folders))


FLAGS = ("--json", "--figures", *exports.FORMATS)
COMMAND = Command("report", __doc__, report, flags=FLAGS, keys=("out",), needs_words=True)
main = COMMAND.main

if __name__ == "__main__":
    COMMAND.run()
