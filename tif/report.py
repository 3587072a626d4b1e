"""python -m tif.report RUN [RUN ...]: the table, the generations and the plots of finished runs, again."""

from tif.reports.run import main
from tif.utils import command_line

if __name__ == "__main__":
    command_line.run_main(main)
