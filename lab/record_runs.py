"""Record losses and metrics of small runs to full precision, to see if a change moves a number.

    python -m lab.record_runs before.json                        at one commit
    python -m lab.record_runs after.json --against before.json   at another, same machine

The runs: the quickstart for three epochs; two steps of one method of each family of losses; LoRA;
padded batches; a frozen reference; evaluations on rows of TOFU and MUSE (--data names the folder
of the real files; without it those two are left out). One thread, so that sums keep their order.
Exit code 1 where a number differs by more than --tolerance (relative; 0 = the same bits).
"""

import argparse
import contextlib
import io
import json
import math
import os
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

SMALL = """
data.fictitious.authors=6 data.fictitious.questions_per_author=4 data.fictitious.forget_share=0.34
data.batch_size=4
model.init.hidden_size=32 model.init.intermediate_size=64 model.init.num_hidden_layers=2
model.init.num_attention_heads=2 model.init.num_key_value_heads=2 model.init.vocab_size=400
optimizer.lr=1e-3 trainer.max_epochs=1 stages.target.optimizer.lr=1e-2
stages.retain.optimizer.lr=1e-2 stages.target.data.batch_size=4 stages.retain.data.batch_size=4
stages.target.trainer.max_epochs=4 stages.retain.trainer.max_epochs=4 eval.max_new_tokens=8
eval.max_samples.retain=6 eval.max_samples.real_authors=3 eval.max_samples.world_facts=3
eval.best=none
""".split()  # noqa: SIM905

RUNS = {
    "quickstart": ["trainer.max_epochs=3"],
    "tpo": [*SMALL],
    "tpo_released": [*SMALL, "loss/tpo_released.yaml"],
    "npo_gdr": [*SMALL, "loss/npo_gdr.yaml"],
    "simnpo": [*SMALL, "loss/simnpo.yaml"],
    "ga_klr": [*SMALL, "loss/ga_klr.yaml"],
    "satimp": [*SMALL, "loss/satimp.yaml"],
    "dpo_gdr": [*SMALL, "loss/dpo_gdr.yaml"],
    "kto": [*SMALL, "loss/kto.yaml"],
    "altpo": [
        *SMALL, "loss/altpo.yaml", "loss.alternates.count=2", "loss.alternates.max_new_tokens=8",
    ],  # fmt: skip
    "undial": [*SMALL, "loss/undial.yaml"],
    "ceu": [*SMALL, "loss/ceu.yaml"],
    "pdu": [*SMALL, "loss/pdu.yaml", "loss.dual.warmup_epochs=0"],
    "rmu": [*SMALL, "loss/rmu.yaml", "loss.rmu.layer=0"],
    "whp": [*SMALL, "loss/whp.yaml", "loss.whp_epochs=1"],
    "task_vector": [*SMALL, "loss/task_vector.yaml"],
    "lora": [*SMALL, "model.lora.rank=4"],
    "padded": [*SMALL, "data.batching=padded"],
    "frozen": [*SMALL, "model.reference=frozen"],
    "parts": [*SMALL, "data.max_tokens_per_batch=128", "loss.chunk_tokens=16"],
}


def flatten(value, prefix=""):
    """Yield (dotted name, number) of all numbers in nested JSON."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from flatten(inner, f"{prefix}.{index}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield prefix, float(value)


def numbers_of_run(folder):
    """Return all numbers of metrics.jsonl and the records of a run folder, but times."""
    numbers = {}
    for index, line in enumerate((folder / "metrics.jsonl").read_text().splitlines()):
        for name, value in flatten(json.loads(line), f"metrics.{index}"):
            if "time" not in name and "seconds" not in name:
                numbers[name] = value
    for file in sorted(folder.glob("eval/*/*.json")):
        where = f"{file.parent.name}/{file.stem}"
        numbers.update(flatten(json.loads(file.read_text()), where))
    return numbers


def call(main, words):
    """Run a command's main quietly; return what it printed.

    Raises:
        SystemExit: If the command fails.
    """
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main(words)
    if code != 0:
        raise SystemExit(f"{' '.join(words)}: exit code {code}\n{errors.getvalue()}")
    return output.getvalue()


def record(data, names):
    """Make the runs; return {run: {name: number}}."""
    from tif import fit

    recorded = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, keys in RUNS.items():
            if name not in names:
                continue
            call(fit.main, ["quickstart.yaml", *keys, f"run.folder={folder}", f"run.name={name}"])
            recorded[name] = numbers_of_run(Path(folder) / name)
            print(name, len(recorded[name]), file=sys.stderr)
        if data and "evaluate" in names:
            recorded |= record_evaluations(data, Path(folder) / "evaluated")
    return recorded


def record_evaluations(data, folder):
    """Evaluate a small model on real rows; return {"evaluate <benchmark>": {name: number}}."""
    from tif import fit
    from tif.evaluate import main as evaluate

    words = ["quickstart.yaml", *SMALL, f"run.folder={folder}"]
    words += ["stages.target.data.batching=padded"]
    call(fit.main, [*words, "stage=target"])
    (model,) = folder.glob("stages/target-*/model")
    sets = ("forget", "retain", "real_authors", "world_facts")
    few = [f"eval.max_samples.{name}=4" for name in sets]
    common = [f"model.path={model}", *few, "eval.max_new_tokens=8", f"out={folder}/out"]
    benchmarks = {
        "tofu": ["eval.benchmarks=tofu", f"eval.tofu.path={data}/tofu"],
        "muse-news": ["eval.benchmarks=muse-news", f"eval.muse_news.path={data}/muse/news"],
    }
    recorded = {}
    for name, words in benchmarks.items():
        report = json.loads(call(evaluate, [*common, *words, "--json"]))
        recorded[f"evaluate {name}"] = dict(flatten(report["benchmarks"]))
        print(f"evaluate {name}", file=sys.stderr)
    return recorded


def compare(before, after, tolerance):
    """Print each run's largest relative difference; return whether all are within the tolerance."""
    good = True
    for name in before:
        if name not in after:
            print(f"{name}: not recorded")
            good = False
            continue
        missing = before[name].keys() - after[name].keys()
        if missing:
            print(f"{name}: {len(missing)} numbers are missing, e.g. {sorted(missing)[:3]}")
        added = after[name].keys() - before[name].keys()  # metrics that are new are no difference
        if added:
            print(f"{name}: {len(added)} new numbers, e.g. {sorted(added)[:3]}")
        worst, where = 0.0, ""
        for key in before[name].keys() & after[name].keys():
            old, new = before[name][key], after[name][key]
            if old == new or (math.isnan(old) and math.isnan(new)):
                continue
            difference = abs(new - old) / max(abs(old), abs(new), 1e-3)
            if not difference <= worst:
                worst, where = difference, f"{key}: {old!r} -> {new!r}"
        good = good and not missing and worst <= tolerance
        total = len(before[name])
        print(f"{name}: {total} numbers, largest relative difference {worst:.3g} {where}")
    return good


def main():
    """Run the command."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--against", type=Path, help="JSON file of an earlier record")
    parser.add_argument("--tolerance", type=float, default=0.0)
    parser.add_argument("--data", type=Path, help="folder with the authors' tofu/ and muse/")
    parser.add_argument("--only", nargs="*", help="names of runs; default all")
    words = parser.parse_args()
    recorded = record(words.data, words.only or [*RUNS, "evaluate"])
    words.out.write_text(json.dumps(recorded, indent=1))
    if words.against:
        before = json.loads(words.against.read_text())
        if words.only:
            before = {name: values for name, values in before.items() if name in recorded}
        sys.exit(0 if compare(before, recorded, words.tolerance) else 1)


if __name__ == "__main__":
    main()
