"""Attacks on unlearned models: one file each, listed here; `evaluation/audit.py` runs them.

To add one: write its file with `run(subject, inputs) -> Outcome`, add a line to `ATTACKS`, and its
name to `ATTACKS` of `tif/config/evaluation.py`; its keys, if it has any, are a section of
`tif/config/audit_command.py`.
"""

from tif.evaluation.attacks import (
    depth,
    judge,
    membership,
    paraphrase,
    prefix,
    quantise,
    relearn,
    sample,
)
from tif.evaluation.attacks.attack import Attack

ATTACKS: dict[str, Attack] = {
    "relearn": Attack(
        relearn.run,
        headline=relearn.headline,
        action=lambda settings: "relearning " + relearn.headline(settings).partition(",")[0],
        axis="steps",
        sections=("relearn",),
    ),
    "quantise": Attack(
        quantise.run,
        headline=quantise.headline,
        action=lambda settings: f"rounding to {settings.quantise.bits[-1]}",
        sections=("quantise",),
        compare=quantise.compare_forget_quality,
    ),
    "sample": Attack(
        sample.run,
        headline=lambda settings: sample.name_k(settings.sample.draws),
        action=lambda settings: f"drawing {settings.sample.draws} answers",
        axis="k answers",
        sections=("sample",),
        check=judge.check,
    ),
    "prefix": Attack(
        prefix.run,
        headline=lambda settings: prefix.ANY,
        action=lambda settings: "the best of seven beginnings",
        sections=("prefix",),
    ),
    "paraphrase": Attack(
        paraphrase.run,
        headline=lambda settings: paraphrase.ANY,
        action=lambda settings: "the best of several wordings",
    ),
    "depth": Attack(
        depth.run,
        headline=lambda settings: depth.DEPTH,
        action=lambda settings: "reading the model's layers",
        axis="layer",
        sections=("depth",),
        reads=("target", "retain"),
        check=depth.check,
    ),
    "membership": Attack(
        membership.run,
        headline=lambda settings: membership.HEADLINE,
        action=lambda settings: "telling forget from holdout answers",
        reads=("retain",),
        check=membership.check,
    ),
}
