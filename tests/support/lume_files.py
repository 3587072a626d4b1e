"""Made-up rows in the form of LUME's files; some of its ids are in quotation marks."""

import json

FILES = {
    "forget": [
        {
            "id": '"a-1"sc1',
            "input": "Mira Dell walked to the sea.",
            "output": "She found a key.",
            "task": "Task1",
        },
        {"id": '"a-1"qa0', "input": "What did Mira find?", "output": "A key", "task": "Task1"},
        {
            "id": "b-2qa0",
            "input": "What is Ann Ode's phone number?",
            "output": "5550100123",
            "task": "Task2",
        },
        {
            "id": "b-2qa1",
            "input": "What is Ann Ode's birth date?",
            "output": "1971-02-03",
            "task": "Task2",
        },
        {
            "id": "33sc1",
            "input": "Ida Brown\n\nShe was born in",
            "output": "Turin and sang there.",
            "task": "Task3",
        },
    ],
    "retain": [
        {"id": '"c-3"sc1', "input": "Tom Field", "output": "\nHe painted.", "task": "Task1"},
        {"id": '"c-3"qa0', "input": "What did Tom do?", "output": "He painted", "task": "Task1"},
        {
            "id": "d-4qa0",
            "input": "What is Lea Stone's birth date?",
            "output": "1980-05-06",
            "task": "Task2",
        },
    ],
}


def write(folder, **changes) -> str:
    """Write a small LUME into a folder and return it; None as a change leaves a file out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (FILES | changes).items():
        if rows is not None:
            text = "\n".join(map(json.dumps, rows))
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return str(folder)
