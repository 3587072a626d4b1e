"""Let `python -m tif.sweep` run the command."""

from tif.sweep.command import COMMAND

if __name__ == "__main__":
    COMMAND.run()
