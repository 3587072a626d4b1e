"""The page of an audit: table, verdicts in words and curves, for a terminal and as Markdown.

Everything is made from the content of audit.json.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.reports.columns import (
    count_units,
    describe_groups,
    escape_markdown,
    format_interval,
    format_number,
    markdown_table,
    terminal_table,
)
from tif.reports.html.charts import Chart, Series
from tif.reports.html.figures import write_panels
from tif.utils.files import write_text
from tif.utils.terminal import console, escape_controls

FILE, PAGE = "audit.json", "audit.md"
ROLES = ("target", "unlearned", "retain")
HEADER = ("attack", *ROLES, "leak", "95 % interval")
SHOWN_NUMBERS = ("forget/quality", "utility/model")  # where there are more than a few
FEW = 4
GONE = 0.05  # a leak whose interval reaches no further than this shows nothing
# Name of a curve and, as everywhere in a report, its colour's role and its style.
LOOKS = {
    "target": ("target", "muted", "line"),
    "unlearned": ("unlearned", "uw", "line"),
    "retain": ("retain model", "ink", "dashed"),
}


def show_audit(content: Mapping[str, Any], folder: Path) -> None:
    """Print the table and the verdicts of an audit, and where its page is."""
    table = terminal_table(HEADER, "What attacks get back", overflow="fold")
    for attack in content["attacks"]:
        table.add_section()
        for line in audit_lines(content, attack):
            table.add_row(*line)
    console.print(table)
    console.print(describe_units(content), style="dim")
    for verdict in list_verdicts(content).values():
        console.print(f"- {verdict}")
    console.print(f"page: {folder / PAGE}", soft_wrap=True)


def audit_lines(content: Mapping[str, Any], name: str) -> list[list[str]]:
    """Return the lines of an attack's table, its headline first."""
    attack, lines = content["attacks"][name], []
    for row in sorted(attack["rows"], key=lambda row: row["measure"] != attack["headline"]):
        cells = [format_number(row[role]) for role in ROLES]
        cells.append("not defined" if row["leak"] is None else format_number(row["leak"]))
        cells.append(format_interval(row["interval"]) if row["interval"] else "-")
        lines.append([f"{name}: {row['measure']}", *cells])
    numbers = attack.get("numbers", {})
    for title, values in numbers.items():
        if len(numbers) <= FEW or title.endswith(SHOWN_NUMBERS):
            cells = [format_number(values.get(role)) for role in ROLES]
            lines.append([f"{name}: {title}", *cells, "-", "-"])
    return lines


def describe_units(content: Mapping[str, Any]) -> str:
    """Return the line below the table: what the intervals are over, attack by attack."""
    groups = {name: attack.get("groups", {}) for name, attack in content["attacks"].items()}
    distinct = {count_units(units) for units in groups.values()}
    over = distinct.pop() if len(distinct) == 1 else describe_groups(groups)
    return f"intervals: Fieller's, over {over or 'questions'}"


def list_verdicts(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the verdict of each attack in a sentence, by the attack's name."""
    verdicts = {}
    for name, attack in content["attacks"].items():
        verdicts[name] = f"{name}: {describe_leak(headline_row(content, name), attack['action'])}"
    return verdicts


def describe_leak(row: Mapping[str, Any], action: str) -> str:
    """Return in words what the leak of an attack says."""
    if row["leak"] is None:
        return f"{action} tells nothing here: {row['reason']}"
    share, interval = _percent(row["leak"]), row["interval"]
    between = f" ({_percent(interval[0])} to {_percent(interval[1])})" if interval else ""
    low, high = interval or (row["leak"], row["leak"])
    got = f"{action} gives back {share}{between} of what only the target model knows"
    if round(100 * row["leak"]) < 0:  # no share of a thing is below zero
        around = f", {between.strip(' ()')}" if between else ""
        got = f"{action} gives nothing back of what only the target model knows"
        got += f" (leak {share}{around})"
    if high < -GONE:
        return f"{got}: less than the retain model yields, which shows that something was removed"
    if high <= GONE:
        return f"{got}: no more than the retain model yields"
    if low <= GONE:
        return f"{got}: it may be gone, but so few questions cannot tell"
    return f"{got}: {'suppressed, not gone' if low > 0.5 else 'partly there still'}"


def _percent(share: float) -> str:
    """Return a share in percent, with a blank as in "10 % of the forget set"; never "-0 %"."""
    return f"{round(100 * share) + 0:d} %"


def write_page(folder: Path, content: Mapping[str, Any]) -> None:
    """Write audit.md and a picture of the curves of each attack that has some."""
    names = {role: escape_markdown(name) for role, name in content["models"].items()}
    models = f"Target model: {names['target']}. Retain model: {names['retain']}."
    lines = [f"# Audit of {names['unlearned']}", ""]
    lines += [f"{models} leak = (unlearned - retain) / (target - retain).", ""]
    lines += [f"- {escape_markdown(text)}" for text in list_verdicts(content).values()] + [""]
    table = [list(HEADER)]
    for name in content["attacks"]:
        table += audit_lines(content, name)
    lines += [markdown_table(table), describe_units(content), ""]
    for name, attack in content["attacks"].items():
        charts = curve_charts(name, attack)
        if charts:
            write_panels(folder / f"{name}.png", charts)
            lines += [f"![{name}]({name}.png)", ""]
    write_text(folder / PAGE, "\n".join(lines))


def curve_charts(name: str, attack: Mapping[str, Any]) -> list[Chart]:
    """Return a chart for each curve of an attack, a line for each model."""
    charts: list[Chart] = []
    for title in attack["curves"].get("target", ()):
        series: list[Series] = []
        for role, (label, color, style) in LOOKS.items():
            points = attack["curves"][role].get(title)
            if points:
                x, y = zip(*points, strict=True)
                series.append(Series(label, x, y, color, style))
        if series:
            axis, highest = attack["axis"], max(max(line.y) for line in series)
            charts.append(Chart(
                f"audit-{name}-{len(charts)}", title, "", axis, "", tuple(series), small=True,
                x_log=axis.startswith("k"), y_range=(0.0, 1.0) if highest <= 1 else None,
            ))  # fmt: skip
    return charts


def write_comparison(folder: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print and write the leaks of several runs by attack: audit.md and leaks.png in a folder."""
    names = _short_names(list(results))
    attacks = list(next(iter(results.values()))["attacks"])
    lines = [["run", *attacks]]
    for run, content in results.items():
        leaks = [headline_row(content, attack)["leak"] for attack in attacks]
        lines.append([names[run], *("-" if leak is None else f"{leak:.2f}" for leak in leaks)])
    console.print("leak by attack: 0 = as the retain model, 1 = as the target model")
    table = terminal_table(lines[0], overflow="fold")
    for line in lines[1:]:
        table.add_row(*line)
    console.print(table)
    folder.mkdir(parents=True, exist_ok=True)
    plot_leaks(folder / "leaks.png", {names[run]: content for run, content in results.items()})
    text = "# Leak by attack\n\n" + markdown_table(lines) + "\n![leak by attack](leaks.png)\n"
    write_text(folder / PAGE, text)
    console.print(f"page: {folder / PAGE}", soft_wrap=True)


def headline_row(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the row of an attack's headline."""
    attack = content["attacks"][name]
    (row,) = (row for row in attack["rows"] if row["measure"] == attack["headline"])
    return dict(row)


def plot_leaks(path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the leak of each run with its interval, a panel for each attack."""
    from matplotlib.figure import Figure

    attacks = list(next(iter(results.values()))["attacks"])
    size = (1.6 + 1.9 * len(attacks), 1.2 + 0.3 * len(results))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(attacks), squeeze=False, sharey=True)[0]
    for axes, attack in zip(panels, attacks, strict=True):
        for y, content in enumerate(results.values()):
            row = headline_row(content, attack)
            if row["leak"] is not None:
                axes.plot(row["interval"] or [row["leak"]] * 2, [y, y], color="tab:blue")
                axes.plot(row["leak"], y, "o", color="tab:blue")
        axes.axvline(0, linestyle="--", color="tab:green")
        axes.axvline(1, linestyle="--", color="tab:red")
        axes.set_title(attack)
        axes.set_xlabel("leak")
        axes.grid(alpha=0.3)
    labels = [escape_controls(name).replace("$", r"\$") for name in results]
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=150)


def _short_names(runs: Sequence[str]) -> dict[str, str]:
    """Return the runs' names without the parts that all share at their beginning or end."""
    parts = [Path(run).parts for run in runs]
    for place, rest in ((0, slice(1, None)), (-1, slice(-1))):
        while min(map(len, parts)) > 1 and len({part[place] for part in parts}) == 1:
            parts = [part[rest] for part in parts]
    return {run: "/".join(part) for run, part in zip(runs, parts, strict=True)}
