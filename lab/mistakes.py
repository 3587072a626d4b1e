"""Make fifteen usual mistakes as a user would, and print what tif says: a table in CSV.

    python -m lab.mistakes [NAME ...] > lab/tables/mistakes.csv

Each is a command of its own, in a folder that is deleted later. A row has the command, its exit
code, its seconds of CPU time and all lines that it printed. Exit code 1 where one printed more than
one line or did not stop.
"""

import csv
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 400,
}  # fmt: skip
TINY = [
    "stage=target", "data.fictitious.authors=4", "data.fictitious.forget_share=0.5",
    "data.fictitious.questions_per_author=2", "stages.target.trainer.max_epochs=1",
    *(f"model.init.{name}={value}" for name, value in SHAPE.items()),
]  # fmt: skip
TEXT = ("text.yaml", "model.path=MODEL")
MODELS = ("fictitious.yaml", "eval.forget_quality=false")
# Name -> words after `tif`; MODEL is a small model's folder.
MISTAKES = {
    "W&B without login": ["fit", "logger.wandb.enabled=true"],
    "precision by another name": ["fit", "trainer.precision=bf16"],
    "truncated safetensors": ["fit", *MODELS, "model.path=truncated"],
    "unknown LoRA target": ["fit", *MODELS, "model.path=MODEL", "model.lora.rank=4",
                            "model.lora.targets=[q_projj]"],
    "hub name without network": ["fit", *MODELS, "model.path=nobody/model"],
    "~ in data.path": ["fit", *TEXT, "data.path=~/absent-folder"],
    "fault in a JSON Lines file": ["fit", *TEXT, "data.path=fault.jsonl"],
    "fault in a YAML file": ["fit", "fault.yaml"],
    "accelerator=gpu without one": ["fit", "trainer.accelerator=gpu"],
    "a file without its ending": ["fit", "loss/npo"],
    "an option with dashes": ["fit", "--beta", "0.2"],
    "a template's quotes": ["fit", "data.template=Question: {prompt} Answer:"],
    "a Latin-1 file": ["fit", *TEXT, "data.path=latin1.txt"],
    "report on a folder of runs": ["report", "runs"],
    "run.name with ..": ["fit", "run.name=../elsewhere"],
}  # fmt: skip


def run(words: list[str], folder: Path) -> tuple[int, float, str]:
    """Return exit code, CPU seconds and output of `python -m tif.<words>` in a folder."""
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    env["HOME"] = str(folder)
    env.pop("WANDB_API_KEY", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", f"tif.{words[0]}", *words[1:]]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, seconds, done.stdout + done.stderr


def prepare(folder: Path) -> Path:
    """Write the files that the mistakes name; return the folder of a small model."""
    code, _, text = run(["fit", *TINY], folder)
    assert code == 0, text
    (model,) = folder.glob("runs/stages/target-*/model")
    truncated = folder / "truncated"
    truncated.mkdir()
    for file in model.iterdir():
        content = file.read_bytes()
        is_weights = file.suffix == ".safetensors"
        (truncated / file.name).write_bytes(content[: len(content) // 2] if is_weights else content)
    (folder / "fault.jsonl").write_text('{"text": "fine"}\n{"text": "no end\n')
    (folder / "fault.yaml").write_text("data:\n  batch_size: 4\n bad: [1\n")
    (folder / "latin1.txt").write_bytes("Zoë lives in Málaga.".encode("latin-1"))
    return model


def main() -> int:
    """Run the command and return its exit code."""
    names = sys.argv[1:] or list(MISTAKES)
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["mistake", "command", "exit code", "CPU seconds", "what it says"])
    is_good = True
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = prepare(folder)
        for name in names:
            words = [word.replace("MODEL", str(model)) for word in MISTAKES[name]]
            code, seconds, text = run(words, folder)
            shown = " ".join(words).replace(str(model), "MODEL")
            lines = [line for line in text.splitlines() if line.strip()]
            is_good = is_good and len(lines) == 1
            message = " ⏎ ".join(lines).replace("|", "\\|").replace(str(folder), "")
            table.writerow([name, f"`tif {shown}`", code, f"{seconds:.1f}", message])
            sys.stdout.flush()
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
