"""python -m tif.report RUN [RUN ...]: the table, the generations and the plots of finished runs, again.

What a run shows at its end is made here, from the files in its folder alone.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tif.records import files as records
from tif.records import metrics_log
from tif.utils.terminal import console

RETAIN = "retain.json"  # the retain model's metrics, written by the run
COLUMNS = {
    "forget/quality": "forget quality ↑",
    "utility/model": "model utility ↑",
    "forget/probability": "forget prob. ↓",
    "forget/rougeL": "forget ROUGE-L ↓",
    "forget/truth_ratio": "forget truth ratio",
    "retain/probability": "retain prob. ↑",
    "retain/rougeL": "retain ROUGE-L ↑",
    "muse/verbmem_forget": "VerbMem forget ↓",
    "muse/knowmem_forget": "KnowMem forget ↓",
    "muse/knowmem_retain": "KnowMem retain ↑",
    "muse/privleak": "PrivLeak → 0",
}

GENERATED = ("forget", "knowmem_forget", "verbmem_forget")  # sets whose generations are shown, the first there is


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 done, 2 no such run."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or {"-h", "--help"} & set(words):
        print(__doc__)
        return 0 if words else 2
    for word in words:
        if not (Path(word) / "metrics.jsonl").is_file():
            print(f"{word}: no run folder (no metrics.jsonl in it)", file=sys.stderr)
            return 2
        write_plots(Path(word))
        show(Path(word))
    return 0


def rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of metrics.jsonl."""
    return metrics_log.read_rows(folder / metrics_log.FILE_NAME)


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """The rows of evaluated epochs, in order."""
    return metrics_log.read_evaluation_rows(folder / metrics_log.FILE_NAME)


def retain_row(folder: Path) -> dict[str, Any]:
    """The retain model's metrics under the same rules, as far as the run knew them."""
    path = folder / RETAIN
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def summary(folder: Path, retain: records.Evaluation | None = None) -> dict[str, Any]:
    """What `summary.json` holds: first, last and best evaluation, the last's intervals, the last training row.

    Args:
        folder: of the run.
        retain: the retain model's records, for the interval of what is compared with them.
    """
    found, training = evaluations(folder), [r for r in rows(folder) if "train/loss" in r]
    from tif.metrics import overall
    from tif.metrics.summary import named_intervals

    around = named_intervals(records.read(folder / "eval" / str(found[-1]["epoch"])), retain) if found else {}
    best = overall.best_epoch(found, overall.key(_eval(folder).best))
    return {
        "start": found[0] if found else None,
        "end": found[-1] if found else None,
        "best": next((row for row in found if row["epoch"] == best), None),
        "intervals": {name: interval for name, interval in around.items() if interval is not None},
        "retain_model": retain_row(folder) or None,
        "training": training[-1] if training else None,
    }


def show(folder: Path) -> None:
    """Print table, generations and where everything is."""
    found = evaluations(folder)
    if found:
        console.print(metrics_table(found, retain_row(folder)))
        if line := intervals_line(folder):
            console.print(line)
        console.print(generations_table(folder, found[0]["epoch"], found[-1]["epoch"]))
    console.print(f"run folder: {escape(str(folder))}", soft_wrap=True)


def intervals_line(folder: Path) -> str:
    """The last evaluation's bootstrap intervals; "" where the run did not end."""
    path = folder / "summary.json"
    around = json.loads(path.read_text(encoding="utf-8")).get("intervals", {}) if path.is_file() else {}
    known = [f"{title.rstrip(' ↑↓→0')} {_limits(around[key])}" for key, title in COLUMNS.items() if key in around]
    return f"95 % intervals of the last epoch, over questions: {', '.join(known)}" if known else ""


def _limits(around: Sequence[float]) -> str:
    return " – ".join(number(limit) for limit in around)


def metrics_table(found: list[dict[str, Any]], retain: dict[str, Any]) -> Table:
    """A row an epoch, and the retain model's."""
    table = Table(title="Forget quality against the retain model, utility over retain set, real authors, world facts")
    table.add_column("epoch", min_width=len("before"))
    shown = {key: title for key, title in COLUMNS.items() if any(key in row for row in found)}
    for title in shown.values():
        table.add_column(title, justify="right", min_width=max(map(len, title.split())))
    for row in found:
        name = "before" if row["epoch"] == 0 else str(row["epoch"])
        table.add_row(name, *(number(row.get(key)) for key in shown))
    if retain:
        table.add_section()
        table.add_row("retain model", *(number(retain.get(key)) for key in shown))
    return table


def number(value: float | None) -> str:
    """Three digits, small p-values as powers."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}"


def generations_table(folder: Path, first: int, last: int) -> Table:
    """Questions, true answers, and what the model said before and after; markup in them is shown, not obeyed."""
    one, other = (records.read(folder / "eval" / str(e)).sets for e in (first, last))
    asked = next(name for name in GENERATED if name in one)
    before, after = one[asked].records, other[asked].records
    limit = int(_eval(folder).samples)
    table = Table(title="Forget questions, before and after", show_lines=True)
    for title in ("question", "true answer", f"epoch {first}", f"epoch {last}"):
        table.add_column(title, ratio=1)
    for i in _spread(len(before), limit):
        b, a = before[i], after[i]
        table.add_row(*(Text(t or "") for t in (b.prompt, b.answer, b.generated, a.generated)))
    return table


def _eval(folder: Path) -> Any:
    """Section `eval` of the run's configuration."""
    from omegaconf import OmegaConf

    return OmegaConf.load(folder / "config.yaml").eval


def _spread(total: int, wanted: int) -> list[int]:
    """`wanted` indices spread evenly over `total`."""
    wanted = min(wanted, total)
    return [i * total // wanted for i in range(wanted)]


def model_card(folder: Path) -> str:
    """The exported model's README.md: how it was made and what it scored."""
    found, env = evaluations(folder), json.loads((folder / "env.json").read_text(encoding="utf-8"))
    lines = [
        "---", "library_name: transformers", "tags: [machine-unlearning]", "---", f"# {folder.name}", "",
        f"Made by tif {env['tif']} (commit {env['commit']}) with the configuration in `../config.yaml`.", "",
    ]  # fmt: skip
    if found:
        keys = [key for key in COLUMNS if any(key in row for row in found)]
        lines += ["| epoch | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
        lines += [f"| {r['epoch']} | " + " | ".join(number(r.get(k)) for k in keys) + " |" for r in found]
    return "\n".join(lines) + "\n"


def write_plots(folder: Path) -> None:
    """quality_utility.png (forget quality and model utility, an epoch a point) and losses.png (the terms by step)."""
    from matplotlib.figure import Figure

    found, retain = [r for r in evaluations(folder) if "forget/quality" in r], retain_row(folder)
    if found:
        figure = Figure(figsize=(6, 4), layout="constrained")
        _quality_utility(figure.subplots(), found, retain)
        figure.savefig(folder / "quality_utility.png", dpi=150)
    training = [r for r in rows(folder) if "train/loss" in r]
    logged = training[0] if training else {}
    parts = [k for k in logged if k.startswith("train/") and "/uw_" not in k and k != "train/loss"]
    if parts:
        figure = Figure(figsize=(6, 2 * len(parts)), layout="constrained")
        for axes, part in zip(figure.subplots(len(parts), sharex=True, squeeze=False)[:, 0], parts, strict=True):
            axes.plot([r["step"] for r in training], [r[part] for r in training])
            name = part.removeprefix("train/")
            axes.set_ylabel(name.upper() if name in ("lpl", "pl") else name)
            axes.grid(alpha=0.3)
        axes.set_xlabel("optimizer step")
        figure.savefig(folder / "losses.png", dpi=150)


def _quality_utility(axes: Any, found: list[dict[str, Any]], retain: dict[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    x, y = ([row[key] for row in found] for key in ("utility/model", "forget/quality"))
    axes.plot(x, y, "-", color="0.7", zorder=1)
    points = axes.scatter(x, y, c=[row["epoch"] for row in found], cmap="viridis", zorder=2)
    axes.figure.colorbar(points, label="epoch", ticks=MaxNLocator(integer=True))
    axes.annotate("before", (x[0], y[0]), textcoords="offset points", xytext=(-6, 6), ha="right")
    axes.annotate("after", (x[-1], y[-1]), textcoords="offset points", xytext=(6, -14))
    axes.axhline(0.05, linestyle=":", color="0.5", label="0.05")
    axes.margins(x=0.1)
    if retain:
        axes.axvline(retain["utility/model"], linestyle="--", color="tab:red", label="retain model's utility")
    axes.figure.legend(loc="outside lower center", ncols=2, frameon=False)  # off the points, wherever they are
    axes.set_yscale("log")
    axes.set_ylim(top=2)
    axes.set_xlabel("model utility")
    axes.set_ylabel("forget quality (KS p-value)")
    axes.grid(alpha=0.3)
