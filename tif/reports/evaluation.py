"""What `python -m tif.evaluate` prints: a table a benchmark, and what to know beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from tif.reports.run import number
from tif.utils.terminal import console

# metric -> its title and, where that depends on the set, the sets on which higher is better ("" = on none).
HIGHER, LOWER = "↑", "↓"
TITLES = {
    "probability": "probability",
    "rouge1": "ROUGE-1 recall",
    "rougeL": "ROUGE-L recall",
    "truth_ratio": "truth ratio, geometric",
    "truth_ratio_arithmetic": "truth ratio, arithmetic",
    "truth_ratio_probability": "truth ratio, probability",
    "exact_memorization": "exact memorization",
    "extraction_strength": "extraction strength",
    "kl": "KL to the original",
    "repetition": "repetition",
    "entropy": "n-gram entropy, bits",
    "clean": "no gibberish",
    "verbmem_forget": "VerbMem, forget",
    "verbmem_retain": "VerbMem, retain",
    "knowmem_forget": "KnowMem, forget",
    "knowmem_retain": "KnowMem, retain",
    "privleak": "PrivLeak",
    "loss": "AUC, loss",
    "zlib": "AUC, zlib",
    "min_k": "AUC, Min-K",
    "min_k_plus_plus": "AUC, Min-K++",
    "reference": "AUC, reference",
    "gradient_norm": "AUC, gradient norm",
}
ALWAYS = {
    "truth_ratio": HIGHER,
    "truth_ratio_arithmetic": HIGHER,
    "kl": LOWER,
    "repetition": LOWER,
    "entropy": HIGHER,
    "clean": HIGHER,
}
NEAR = {"privleak": "→ 0"} | dict.fromkeys(
    ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradient_norm"), "→ ½"
)

Row = tuple[str, str, float | None, Sequence[float] | None, str]  # section, title, value, interval, name of the metric


def show(found: Mapping[str, Any]) -> None:
    """Print the tables of records, or of a model's benchmarks."""
    if "benchmarks" not in found:
        _show(found, "")
        return
    for name, own in found["benchmarks"].items():
        _show({"model": found["model"], "retain_model": None, **own}, name)
        console.print(f"records: {own.get('folder') or own['file']}", soft_wrap=True, markup=False)


def _show(found: Mapping[str, Any], benchmark: str) -> None:
    console.print(table(found, benchmark))
    for line in notes(found):
        console.print(line, soft_wrap=True, markup=False)


def table(found: Mapping[str, Any], benchmark: str = "") -> Table:
    """A row a number: its value, its interval, the retain model's value where it is known, its protocol."""
    rows = _tofu_rows(found) if "tasks" in found else _flat_rows(found)
    rules, retain = _protocol(found["protocol"]), found.get("retain_metrics") or {}
    title = benchmark or ("questions of TOFU" if "tasks" in found else "texts and questions")
    shown = Table(title=Text(f"{found['model']}, {title}"), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("metric", no_wrap=True)
    for column in ("value", "95 % interval", *(["retain\nmodel"] if retain else [])):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("protocol")
    section = None
    for own, title, value, around, name in rows:
        if own != section:
            shown.add_section()
            if own:
                shown.add_row(Text(own, "bold"))
            section = own
        limits = f"{number(around[0])} – {number(around[1])}" if around else "-"
        beside = [number(retain.get(name))] if retain else []
        shown.add_row(
            Text(f"{'  ' if own else ''}{title}"), number(value), limits, *beside, Text(_rule(found, name, rules))
        )
    return shown


def _tofu_rows(found: Mapping[str, Any]) -> list[Row]:
    around = found["intervals"]
    rows: list[Row] = [
        ("", "forget quality ↑", found["forget_quality"], around["forget_quality"], "forget/quality"),
        ("", "model utility ↑", found["model_utility"], around["model_utility"], "utility/model"),
    ]
    for name, means in found["tasks"].items():
        section = f"{name}, {found['questions'][name]} questions"
        rows += [(section, _title(m, name), v, around["tasks"][name][m], f"{name}/{m}") for m, v in means.items()]
    return rows


def _flat_rows(found: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for name, value in found["metrics"].items():
        group, _, metric = name.partition("/")
        count = f", {found['questions'][group]} samples" if group in found.get("questions", {}) else ""
        of = metric if group == "muse" else group
        section = "" if group == "muse" else f"{group}{count}"
        rows.append((section, _title(metric, of), value, found["intervals"][name], name))
    return rows


def _title(metric: str, of: str) -> str:
    """A metric's title with where it should go; `of`: the set, forget sets go the other way."""
    way = NEAR.get(metric) or ALWAYS.get(metric) or (LOWER if "forget" in of else HIGHER)
    return f"{TITLES.get(metric, metric)} {way}"


def _rule(found: Mapping[str, Any], name: str, rules: str) -> str:
    """The protocol behind a number; both of them where a comparison mixes two."""
    if name not in ("forget/quality", "muse/privleak") or not found["retain_model"]:
        return rules
    others = _protocol(found["retain_protocol"])
    return rules if rules == others else f"{rules}; retain model {others}"


def notes(found: Mapping[str, Any]) -> list[str]:
    """What to know beside the table."""
    if "bootstrap" not in found:
        return ["intervals: value ± 1.96 standard errors as lm-eval gives them"]
    draws, seed = found["bootstrap"]["draws"], found["bootstrap"]["seed"]
    lines = [f"intervals: percentile bootstrap over questions, {draws} draws, seed {seed}"]
    compared = "forget quality" if "tasks" in found else "PrivLeak" if "muse/privleak" in found["metrics"] else None
    if found["retain_model"] is not None:
        lines.append(f"retain model: {found['retain_model']}")
    elif compared:
        lines.append(f"{compared}: needs retain_records or retain_model")
    if not found["protocol"]:
        lines.append("protocol: logs of this kind do not record it; those of locuslab/tofu follow legacy-tofu")
    if found["mismatch"]:
        lines.append(f"NOT COMPARABLE, computed all the same: {found['mismatch']}")
    return lines


def _protocol(rules: Mapping[str, Any] | None) -> str:
    return str((rules or {}).get("name", "not recorded"))
