"""Let `python -m tif.audit` run the command."""

from tif.audit.command import COMMAND

if __name__ == "__main__":
    COMMAND.run()
