"""Let `python -m tif.bench` run the command."""

from tif.bench.command import COMMAND

if __name__ == "__main__":
    COMMAND.run()
