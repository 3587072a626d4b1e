"""Draw what `tif chat` shows: python -m lab.chat_picture OUT.svg WIDTH WORD ... (of tif chat)."""

import sys

from tif import chat
from tif.utils.terminal import console


def main() -> int:
    """Run the command with a console that records, and write the picture."""
    out, width, *words = sys.argv[1:]
    console.record, console._force_terminal = True, True
    console.width = int(width)
    code = chat.main(words)
    console.save_svg(out, title="tif chat")
    return code


if __name__ == "__main__":
    sys.exit(main())
