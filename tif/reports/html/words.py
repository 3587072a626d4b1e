"""A run in words: what it did, what it cost, which epoch stays, and what to look out for.

A sentence is a list of pieces; a piece is a text, or a Number, which the page sets apart.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tif.reports.columns import column_title, describe_metric, format_metric, list_trade_offs
from tif.reports.html.run_data import RunData

METHODS = {
    "lpl": "TPO", "ce": "Finetuning", "ga": "Gradient ascent", "npo": "NPO", "simnpo": "SimNPO",
    "dpo": "DPO", "kto": "KTO", "idk": "IDK", "wga": "WGA", "satimp": "SatImp", "rmu": "RMU",
    "undial": "UNDIAL", "ceu": "CEU", "whp": "Who’s Harry Potter",
}  # fmt: skip
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
ALIKE = 0.05  # forget quality from which the test no longer tells the model from the retain model


class Number(NamedTuple):
    """A number, or what else a reader looks for in a sentence."""

    text: str


Sentence = list[str | Number]


def method_name(run: RunData) -> str:
    """Return the method's name, as people say it."""
    loss = run.section("loss")
    name = str(loss.get("forget", ""))
    if name == "ce" and loss.get("task_vector"):
        return "The task vector"
    return METHODS.get(name, name or "The run")


def data_name(run: RunData) -> str:
    """Return the benchmark's name with its split."""
    data = run.section("data")
    name, split = str(data.get("benchmark", "")), data.get("split")
    titles = {"tofu": "TOFU", "muse": "MUSE", "lume": "LUME", "knowundo": "KnowUnDo"}
    titles |= {"fictitious": "invented authors", "text": "texts of one’s own"}
    has_splits = name in ("tofu", "lume", "knowundo")
    return f"{titles.get(name, name)}{f' {split}' if split and has_splits else ''}"


def pretty(value: float | None, metric: str = "") -> str:
    """Return a metric's value as it is printed: 0.847, 1.9 × 10⁻⁴, a dash for None."""
    text = format_metric(metric, value)
    if value is None:
        return "–"
    return pretty_power(text) if "e" in text else text.replace("-", "−")


def pretty_power(text: str) -> str:
    """Return 1.9e-04 as 1.9 × 10⁻⁴."""
    digits, power = text.split("e")
    return f"{digits.replace('-', '−')} × 10{str(int(power)).translate(SUPERSCRIPTS)}"


def typeset(line: str) -> str:
    """Return a line of the terminal's with numbers as the page prints them: −0.13, 13 %."""
    line = re.sub(r"\d\.\d+e[-+]\d+", lambda number: pretty_power(number[0]), line)
    line = re.sub(r"(?<![\w)-])-(?=\d)", "−", line)
    return re.sub(r"(?<=\d) ?%", "\u00a0%", line)


def join_arrow(title: str) -> str:
    """Return a column's title that breaks neither before its arrow nor inside ROUGE-L."""
    joined = title.replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓")
    return joined.replace("ROUGE-L", "ROUGE\u2011L")


def summary_sentences(run: RunData) -> list[Sentence]:
    """Return what was forgotten, what that cost, and what a retain model says of it."""
    if not run.rows:
        return [["The run was not evaluated: ", Number("eval.enabled=false"), "."]]
    start, end = run.rows[0], run.rows[-1]
    if len(run.rows) == 1:
        opening = f"{method_name(run)} on {data_name(run)}: only one evaluation is there, "
        return [[opening, "so nothing can be compared yet."]]
    epochs = f"{end['epoch']} epoch{'' if end['epoch'] == 1 else 's'}"
    opening = f"{epochs} of {method_name(run)} on {data_name(run)} "
    return [[opening, *_forgetting(run, start, end)], _cost(run, start, end)]


def _forgetting(run: RunData, start: Mapping[str, Any], end: Mapping[str, Any]) -> Sentence:
    """Return what became less likely, and whether the model passes for a retain model."""
    forgetting = [y for _, y in list_trade_offs() if column_title(y).endswith("↓")]
    pieces: Sentence = ["changed the model. "]
    for metric in ("words/unwanted", *forgetting):
        if metric in start and metric in end:
            pieces = [f"took the {describe_metric(metric)} from ", *_change(start, end, metric)]
            level = run.retain.get(metric)
            pieces += [" (retain model ", _number(metric, level), ")"] if level is not None else []
            pieces += [". "]
            break
    return [*pieces, *_verdict(start, end)]


def _verdict(start: Mapping[str, Any], end: Mapping[str, Any]) -> Sentence:
    quality = end.get("forget/quality")
    if quality is not None:
        verb = "can no longer" if quality >= ALIKE else "can still"
        ending: Sentence = [f"A test {verb} tell it from a model that never saw the answers"]
        return [*ending, ": forget quality ", *_from_to(start, end, "forget/quality"), "."]
    if end.get("muse/privleak") is not None:
        pieces = _from_to(start, end, "muse/privleak")
        return ["PrivLeak ", *pieces, "; 0 is a model that never saw the texts."]
    return ["Without a retain model, forget quality cannot be had."]


def _cost(run: RunData, start: Mapping[str, Any], end: Mapping[str, Any]) -> Sentence:
    """Return what the model is still good for."""
    pieces: Sentence = []
    for metric, _ in list_trade_offs():
        before, after = start.get(metric), end.get(metric)
        if before and after is not None:
            verb = "keeps" if after <= before else "has"
            share = Number(f"{100 * after / before:.0f}\u00a0%")
            pieces = [f"It {verb} ", share, f" of the {describe_metric(metric)}"]
            level = run.retain.get(metric)
            pieces += [" (", *_from_to(start, end, metric)]
            pieces += ["; retain model ", _number(metric, level)] if level is not None else []
            pieces += [")"]
            break
    if end.get("words/general") is not None and start.get("words/general") is not None:
        joined = ", and the general words beside the unwanted ones went from "
        pieces += [joined if pieces else "The general words went from "]
        pieces += _change(start, end, "words/general")
    return [*pieces, "."] if pieces else []


def _change(start: Mapping[str, Any], end: Mapping[str, Any], metric: str) -> Sentence:
    return [_number(metric, start[metric]), " to ", _number(metric, end[metric])]


def _from_to(start: Mapping[str, Any], end: Mapping[str, Any], metric: str) -> Sentence:
    before, after = _number(metric, start.get(metric)), _number(metric, end[metric])
    if start.get(metric) is None or before == after:
        return [after]
    return [before, " → ", after]


def _number(metric: str, value: float | None) -> Number:
    return Number(pretty(value, metric))


def epoch_sentences(run: RunData) -> list[str]:
    """Return which epoch's model is where, and which one was chosen."""
    if not run.rows:
        return []
    last, best = run.rows[-1]["epoch"], run.best_epoch
    reasons = {
        "score": "the highest harmonic mean of usefulness and forgetting",
        "forget/quality": "the highest forget quality", "utility/model": "the highest utility",
    }  # fmt: skip
    exported = run.section("run").get("export", True)
    place = "model/ holds" if exported else "Nothing was exported (run.export=false). The last is"
    sentences = [f"{place} epoch {last}, the result."]
    reason = reasons.get(run.best_by, run.best_by)
    if best is None:
        no_rank = "eval.best=none"
        if run.best_by != "none":
            no_rank = "a set has one author or document, or the numbers were not computed"
        sentences.append(f"No epoch was chosen: {no_rank}.")
    elif best == last:
        rule = f"{reason} (eval.best={run.best_by})"
        sentences.append(f"It has also {rule} on half of the questions.")
    else:
        where = "model_best/ holds" if exported else "Chosen is"
        sentences.append(
            f"{where} epoch {best}, with {reason} (eval.best={run.best_by}) on half of the "
            "questions; its own line has the other half."
        )
    return sentences


def warnings(run: RunData) -> list[tuple[str, str]]:
    """Return (name, line) of what a reader should know before believing the numbers."""
    lines = []
    for name, line, epochs in run.failures():
        last = bool(run.rows) and run.rows[-1]["epoch"] in epochs
        when = "at the end" if last else f"until epoch {epochs[-1]}, not at the end"
        if epochs[-1] == 0:
            when = "before training"
        lines.append((name.replace("_", "-"), typeset(f"{line} ({when})")))
    wanted = run.section("trainer").get("max_epochs")
    if run.rows and isinstance(wanted, int) and run.rows[-1]["epoch"] < wanted:
        lines.append(("unfinished", f"epoch {run.rows[-1]['epoch']} of {wanted} is the last here"))
    return lines
