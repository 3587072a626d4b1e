"""Show finished runs: tables, report.html, a comparison of several runs, exports for a paper.

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

Exit code: 0 done, 1 a file could not be written, 2 a folder is no run folder, or a file in it is
damaged (one line with its name and what to delete).
"""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from tif.records.metrics_log import FILE_NAME
from tif.reports import exports
from tif.reports.html.charts import Chart
from tif.reports.html.comparison import default_place, write_comparison
from tif.reports.html.comparison_data import collect, find_runs, group_runs
from tif.reports.html.run_report import write_run_report
from tif.reports.run_tables import show_run
from tif.reports.sweep import show_table
from tif.utils import command_line
from tif.utils.files import DamagedFile
from tif.utils.terminal import console


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command_line.Parser("tif report")
    parser.add_argument("words", nargs="*")
    flags = ("--figures", *exports.FORMATS, "--help", "-h")
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    options = parser.parse_intermixed_args(argv)
    outs = [Path(word.removeprefix("out=")) for word in options.words if word.startswith("out=")]
    runs = [word for word in options.words if not word.startswith("out=")]
    if options.help or options.h or not runs:
        command_line.print_help(__doc__ or "")
        return 0 if options.help or options.h else 2
    formats = [flag for flag in exports.FORMATS if getattr(options, flag.strip("-"))]
    try:
        folders = _find_folders(runs)
        if formats:
            results = collect(group_runs(folders))
            print("\n".join(exports.FORMATS[flag](results) for flag in formats), end="")
            return 0
        out = outs[-1] if outs else None
        page, charts = _report(runs, folders, out)
        path = os.path.relpath(page) if page.is_relative_to(Path.cwd()) else str(page)
        if out or len(folders) > 1:  # else the run's tables name it
            console.print(f"see it: open {shlex.quote(path)}", soft_wrap=True)
        if options.figures:
            _write_figures(Path(path).parent, charts)
    except DamagedFile as error:
        command_line.print_error(error)
        return 2
    except Exception as error:
        return command_line.report_os_error(error, "the same command tries again")
    return 0


def _report(
    words: Sequence[str], folders: Sequence[Path], out: Path | None
) -> tuple[Path, list[Chart]]:
    """Show the runs in the terminal, write their report, and return its path and charts."""
    if len(folders) == 1:
        path, charts = write_run_report(folders[0], out=out)
        show_run(folders[0])
        return path, charts
    out = out or default_place(folders)
    title = Path(words[0]).resolve().name if len(words) == 1 else f"{len(folders)} runs"
    charts = write_comparison(folders, out, title)
    show_table(collect(group_runs(folders)))
    return out, charts


def _write_figures(folder: Path, charts: Sequence[Chart]) -> None:
    from tif.reports.html.figures import FOLDER, write_figures

    paths = write_figures(folder / FOLDER, charts)
    console.print(f"figures: {folder / FOLDER} ({len(paths)} files)", soft_wrap=True)


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
            hint = "".join(f"; want {run}" for run in _list_runs(folder)[:3])
            raise DamagedFile(f"{word}: no run folder (no {FILE_NAME} in it){hint}")
        folders += runs
    return list(dict.fromkeys(folders))


def _list_runs(folder: Path) -> list[Path]:
    """Return the run folders in a folder, the newest first."""
    files = sorted(folder.glob(f"*/{FILE_NAME}"), key=lambda file: -file.lstat().st_mtime)
    return [file.parent for file in files]


if __name__ == "__main__":
    command_line.run_main(main)
