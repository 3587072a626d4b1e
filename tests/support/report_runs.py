"""Run folders for reports, written without a training: any number of samples and epochs."""

import json
import random

from tif.metrics.targeted import summarize_forget_words
from tif.records import files as records
from tif.records.files import write_answer_tokens
from tif.records.types import AnswerTokens, Evaluation, Record, RecordSet, TokenStats

WORDS = [
    "the",
    "author",
    "was",
    "born",
    "in",
    "Oslo",
    "and",
    "wrote",
    "nine",
    "novels",
    "about",
    "ships",
]


def token_ends(words):
    """Return where each word of a text ends, and the end token."""
    ends, at = [], 0
    for i, word in enumerate(words):
        at += len(word) + (i > 0)
        ends.append(at)
    return (*ends, at)


def record(draw, name, i, generated="He was born in Oslo."):
    """Return a record whose answer is WORDS, with scores drawn from `draw`."""
    logprobs = tuple(round(-draw.expovariate(0.5), 6) for _ in range(len(WORDS) + 1))
    stats = TokenStats(
        logprobs,
        tuple(value > -1 for value in logprobs),
        (-1.0,) * len(logprobs),
        (1.0,) * len(logprobs),
    )
    loss = -sum(logprobs) / len(logprobs)
    return Record(
        f"{name}/{i}", f"Where was author {i} born?", " ".join(WORDS), loss, len(logprobs),
        loss + 0.1, (loss + 1, loss + 2), generated, stats,
    )  # fmt: skip


def evaluation(epoch, sets, seed=0):
    """Return an evaluation with `sets`: name -> number of questions."""
    draw = random.Random(f"{epoch} {seed}")
    record_sets = {
        name: RecordSet(name, tuple(record(draw, name, i) for i in range(count)))
        for name, count in sets.items()
    }
    number = epoch if isinstance(epoch, int) else None
    return Evaluation("m", record_sets, "llama", {"name": "open-unlearning"}, number)


def answer_tokens(sets):
    """Return the tokens of all answers; Oslo and nine are unwanted in the forget set."""
    ends, unwanted = token_ends(WORDS), ((23, 27), (38, 42))
    marks = tuple(word in ("Oslo", "nine") for word in [*WORDS, ""])
    tokens = {}
    for name, count in sets.items():
        answer = AnswerTokens(ends, marks, unwanted) if name == "forget" else AnswerTokens(ends)
        tokens[name] = {f"{name}/{i}": answer for i in range(count)}
    return tokens


def write_run(folder, epochs=3, sets=None, metrics=None, retain=True, config=None):
    """Write a run folder and return it.

    Args:
        folder: of the run.
        epochs: evaluations, epoch 0 first.
        sets: name -> number of questions.
        metrics: of each epoch, besides what is in every row.
        retain: whether the retain model's records are there.
        config: content of config.yaml, as JSON.
    """
    sets = sets or {"forget": 4, "retain": 4}
    folder.mkdir(parents=True)
    default = {
        "loss": {"forget": "lpl", "on": "uw"},
        "data": {"benchmark": "tofu", "split": "forget01"},
    }
    default |= {
        "trainer": {"max_epochs": epochs - 1},
        "eval": {"best": "score"},
        "run": {"export": True},
    }
    (folder / "config.yaml").write_text(
        "# python -m tif.fit x\n" + json.dumps(default | (config or {}))
    )
    lines = []
    for epoch in range(epochs):
        evaluated = evaluation(epoch, sets)
        row = {"epoch": epoch, "step": epoch * 2, **(metrics[epoch] if metrics else {})}
        row |= summarize_forget_words(evaluated.sets, answer_tokens(sets))
        records.write_evaluation(folder / "eval" / str(epoch), evaluated, {})
        lines += [
            row,
            {"epoch": epoch, "step": epoch * 2, "train/loss": 1.5, "train/lpl": 1.0 / (epoch + 1)},
        ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_answer_tokens(folder / "eval", answer_tokens(sets))
    if retain:
        values = {"forget/probability": 0.2, "utility/model": 0.6}
        records.write_evaluation(
            folder / "eval" / "retain_model", evaluation("retain", sets), values
        )
    return folder
