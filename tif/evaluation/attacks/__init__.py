"""Attacks on unlearned models: one file each, listed here; `evaluation/audit.py` runs them.

To add one: write its file with `run(subject, inputs) -> Outcome`, add a line to `ATTACKS`, and its
name (and section of keys, if it has any) to `tif/config/audit_command.py`.
"""

from tif.evaluation.attacks import prefix
from tif.evaluation.attacks.attack import Attack

ATTACKS: dict[str, Attack] = {
    "prefix": Attack(
        prefix.run,
        headline=lambda settings: prefix.ANY,
        action=lambda settings, questions: "the best of seven beginnings",
        sections=("prefix",),
    ),
}
