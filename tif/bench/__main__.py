"""Let `tif bench` run the command."""

from tif.bench.command import main
from tif.utils import command_line

if __name__ == "__main__":
    command_line.run_main(main)
