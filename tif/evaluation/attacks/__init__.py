"""Attacks on unlearned models: one file each, listed here; `evaluation/audit.py` runs them.

To add one: write its file with `run(subject, inputs) -> Outcome`, add a line to `ATTACKS`, and its
name (and section of keys, if it has any) to `tif/config/audit_command.py`.
"""

from tif.evaluation.attacks import depth, membership, prefix
from tif.evaluation.attacks.attack import Attack

ATTACKS: dict[str, Attack] = {
    "prefix": Attack(
        prefix.run,
        headline=lambda settings: prefix.ANY,
        action=lambda settings, questions: "the best of seven beginnings",
        sections=("prefix",),
    ),
    "depth": Attack(
        depth.run,
        headline=lambda settings: depth.DEPTH,
        action=lambda settings, questions: "reading the model's layers",
        axis="layer",
        sections=("depth",),
        reads=("target", "retain"),
        check=depth.check,
    ),
    "membership": Attack(
        membership.run,
        headline=lambda settings: membership.HEADLINE,
        action=lambda settings, questions: "telling forget from holdout answers",
        reads=("retain",),
        check=membership.check,
    ),
}
