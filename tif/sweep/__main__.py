"""Let `tif sweep` run the command."""

from tif.sweep.command import main
from tif.utils import command_line

if __name__ == "__main__":
    command_line.run_main(main)
