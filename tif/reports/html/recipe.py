"""The recipe of a run: the keys that a reader asks for first, in words."""

from pathlib import Path
from typing import Any

from tif.reports.html.run_data import RunData
from tif.reports.html.words import data_name, method_name
from tif.reports.run_folder import describe_times


def facts(run: RunData) -> list[tuple[str, str]]:
    """Return (name, value) of the line below a report's first sentences."""
    lines = [("method", method_name(run)), ("data", data_name(run)), ("model", _model_name(run))]
    forget = run.counts.get("forget")
    if forget:
        lines.append(("forget questions", str(forget)))
    if run.protocol:
        lines.append(("protocol", run.protocol))
    started = str(run.env.get("started", ""))[:10]
    return [*lines, ("date", started)] if started else lines


def recipe(run: RunData) -> list[tuple[str, str]]:
    """Return (name, value) of what the run was made with."""
    loss, data = run.section("loss"), run.section("data")
    optimizer, trainer = run.section("optimizer"), run.section("trainer")
    identifier = run.section("identifier")
    lines = [
        ("forget term", f"{loss.get('forget')} on {_words(loss.get('on'))}"),
        ("preservation of general words", _term(loss, "preserve", "pl_weight")),
        ("retain term", _term(loss, "retain", "retain_weight")),
        ("beta", str(loss.get("beta", ""))),
        ("unwanted words", _unwanted(run, identifier)),
        ("optimizer", f"{optimizer.get('name', 'adamw')}, lr {optimizer.get('lr')}"),
        ("epochs", f"{trainer.get('max_epochs')}, batch of {data.get('batch_size')}"),
        ("template", str(data.get("template", ""))),
        ("model", _model_name(run)),
        ("seed", str(run.section("run").get("seed", ""))),
        ("time", describe_times(run.folder)),
        ("questions", ", ".join(f"{name} {count}" for name, count in run.counts.items())),
        ("code", f"tif {run.env.get('tif')}, commit {run.env.get('commit')}" if run.env else ""),
    ]
    return [(name, value) for name, value in lines if value and "None" not in value]


def _model_name(run: RunData) -> str:
    """Return the model that the run, or the stage that made its target model, started from."""
    model = run.section("model")
    name, stages = model.get("base") or model.get("path"), run.section("stages")
    if name is None or name in stages:
        return f"a new {(model.get('init') or {}).get('model_type', 'Llama')}"
    return Path(name).name if Path(str(name)).is_absolute() else str(name)


def _words(on: Any) -> str:
    return {"uw": "unwanted words (UW)", "all": "all answer tokens"}.get(str(on), str(on))


def _term(loss: dict[str, Any], name: str, weight: str) -> str:
    term = str(loss.get(name, "none"))
    return "none" if term == "none" else f"{term}, weight {loss.get(weight)}"


def _unwanted(run: RunData, identifier: dict[str, Any]) -> str:
    if run.unwanted_share is None:
        return ""
    share = f"{100 * run.unwanted_share:.0f}\u00a0%"
    return f"{share} of the forget tokens, found by {identifier.get('kind')}"
