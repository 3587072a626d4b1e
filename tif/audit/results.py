"""The content of audit.json: what the attacks left of the models, compared by question."""

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tif._version import VERSION
from tif.audit.attack import AttackInputs, AttackResult, get_attack
from tif.audit.tables import FILE, ROLES
from tif.config import registry
from tif.metrics.leak import leak_of_questions
from tif.records.json_values import load_json
from tif.utils.files import write_text


def summarize_audit(
    inputs: AttackInputs, outcomes: Mapping[str, Mapping[str, AttackResult]]
) -> dict[str, Any]:
    """Return the content of audit.json: rows of each attack, its verdict and its curves.

    `outcomes`: by attack and role of the model.
    """
    keys: dict[str, Any] = {}
    attacks: dict[str, Any] = {}
    for name, by_role in outcomes.items():
        keys[name] = dataclasses.asdict(inputs.settings.keys_of(get_attack(name).keys))
        attacks[name] = _summarize_attack(name, by_role, inputs)
    return {
        "tif": VERSION,
        "models": {role: str(inputs.subjects[role].section.path) for role in ROLES},
        "settings": keys,
        "attacks": attacks,
    }


def _summarize_attack(
    name: str, by_role: Mapping[str, AttackResult], inputs: AttackInputs
) -> dict[str, Any]:
    """Return what audit.json says of an attack."""
    attack = get_attack(name)
    target = by_role["target"]
    group_of = {s.id: s.subject or f"question/{s.id}" for s in inputs.benchmark.forget}
    groups = [group_of[sample_id] for sample_id in target.ids]
    rows = []
    for measure in target.measures:
        values = {role: by_role[role].measures[measure] for role in ROLES}
        row = leak_of_questions(values, groups)
        rows.append({"measure": measure, **dataclasses.asdict(row)})
    numbers: dict[str, Any] = {}
    for number in target.numbers:
        numbers[number] = {role: by_role[role].numbers.get(number) for role in ROLES}
    if attack.compare:
        numbers |= attack.compare(by_role)
    return {
        "headline": attack.headline(inputs.settings),
        "action": attack.action(inputs.settings),
        "axis": attack.axis,
        "questions": len(groups),
        "groups": dict(Counter(group.partition("/")[0] for group in set(groups))),
        "rows": rows,
        "numbers": numbers,
        "curves": {role: dict(by_role[role].curves) for role in ROLES},
    }


def write_audit(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write audit.json and return its content: attacks that were not run again stay in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged
        before = load_json(folder / FILE)
        if all(before[key] == content[key] for key in ("tif", "models")):
            earlier = before["attacks"]
            known = {name: earlier[name] for name in registry.entries("attack") if name in earlier}
            content = {**content, "attacks": {**known, **content["attacks"]}}
    write_text(folder / FILE, json.dumps(content, indent=1) + "\n")
    return content
