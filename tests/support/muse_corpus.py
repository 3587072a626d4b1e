"""A small corpus in the layout of muse_bench."""

import json

FILES = {
    "verbmem/forget.json": [{"prompt": "It was ", "gt": "late. "}],
    "knowmem/forget_qa.json": [{"question": "Who?", "answer": "Mira."}],
    "knowmem/forget_qa_icl.json": [
        {"question": "When?", "answer": "1472"},
        {"question": "Why?", "answer": "So."},
    ],
    "knowmem/retain_qa.json": [
        {"question": "Where?", "answer": "Here."},
        {"question": "Where?", "answer": "Here"},
    ],
    "knowmem/retain_qa_icl.json": [{"question": "What?", "answer": "That."}],
    "privleak/forget.json": ["one", "two"],
    "privleak/holdout.json": [{"text": "three"}],
    "raw/forget.txt": "An article.\n\nIts end.\n\nAnother.",
    "raw/retain1.json": ["kept", "kept too"],
    "raw/retain2.txt": "read, and not drawn from",
    "scal/forget_2.json": ["one", "more"],
}


def corpus(folder, **changes):
    """Write a small corpus in muse_bench's layout; a change to None leaves a file out."""
    for name, content in (FILES | changes).items():
        if content is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                content
                if name.endswith(".txt") or isinstance(content, str)
                else json.dumps(content)
            )
    return str(folder)
