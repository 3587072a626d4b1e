"""Render a chat template in a process of its own: it is a program of strangers.

Started by data/templates.py, as a script. JSON comes from stdin: `template`, `variables`, `chats`
(pairs of messages and whether the answer is to follow), today's date as the template is to see it
(`date` as text, `day` in ISO's form) and the limits `seconds`, `megabytes`, `characters`; JSON goes
to stdout: `texts`, each rendered twice, or `error`. Imports no torch.
"""

import datetime
import json
import random
import resource
import sys
from pathlib import Path
from typing import Any

MEMORY = Path("/proc/self/statm")  # its first number: pages of this process


def stop_clock(day: str) -> type[datetime.datetime]:
    """Return a clock that stands still: prompts of one run must not differ by the day."""

    class FixedDate(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "FixedDate":
            return cls.fromisoformat(day)

    return FixedDate


def main() -> None:
    """Answer the request on stdin within its limits."""
    from transformers.utils import chat_template_utils

    request = json.load(sys.stdin)
    chat_template_utils.datetime = stop_clock(request["day"])  # type: ignore[misc]
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + request["seconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    if MEMORY.exists():
        size = int(MEMORY.read_text().split()[0]) * resource.getpagesize()
        size += request["megabytes"] * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    try:
        answer = json.dumps({"texts": render_twice(request)})
    except MemoryError:
        answer = json.dumps({"error": f"it needs more than {request['megabytes']} MB"})
    except Exception as error:  # whatever the template raises
        answer = json.dumps({"error": str(error)[:1000] or type(error).__name__})
    print(answer)


def render_twice(request: dict[str, Any]) -> list[str]:
    """Return the texts of the chats, and again with other random numbers."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts = []
    for seed in (0, 1):
        random.seed(seed)  # the filter `random`
        for messages, wants_answer in request["chats"]:
            rendered: Any = render_jinja_template(
                [messages], chat_template=request["template"], add_generation_prompt=wants_answer,
                date_string=request["date"], **request["variables"],
            )  # fmt: skip
            text = str(rendered[0][0])
            if len(text) > request["characters"]:
                raise ValueError(f"it renders {len(text):,} characters")
            texts.append(text)
    return texts


if __name__ == "__main__":
    main()
