"""Read TOFU (locuslab/TOFU) from a folder of its JSON files or from the hub.

Source: Maini et al., "TOFU", arXiv 2401.06121.
"""

import os
from typing import Any

from tif.config.data import TOFU_RETAIN_SPLITS, Data
from tif.config.keys import key
from tif.data.benchmarks import benchmark
from tif.data.rows import get_column, make_samples, read_place
from tif.data.samples import Benchmark, Sample

DEFAULT_SPLIT = "forget10"
WANTS = "a folder of TOFU's JSON files or the hub name locuslab/TOFU"
FULL_ROWS = 4000  # rows of TOFU's `full`; the forget splits are the last 40, 200 and 400 of them


@benchmark(
    "tofu",
    {
        "path": key("locuslab/TOFU", "hub name, or a folder of TOFU's JSON files"),
        "split": key(DEFAULT_SPLIT, "forget split", choices=tuple(TOFU_RETAIN_SPLITS)),
        "holdout": key(None, "as data.holdout"),
    },
    title="TOFU",
    about="questions about fictitious authors; splits forget01, forget05, forget10",
    wants=WANTS,
    file="tofu.yaml",
    hub="locuslab/TOFU",
)
def read(data: Data, with_training: bool) -> Benchmark:
    """Read TOFU as section `data` says."""
    split = data.split or DEFAULT_SPLIT
    return read_tofu(str(data.path), split, data.max_retain, data.holdout)


def read_tofu(
    path: str, split: str, max_retain: int | None = None, holdout: str | None = None
) -> Benchmark:
    """Read a forget split, its retain split and the evaluation sets.

    The id of a sample is its row in TOFU's `full` ("tofu/3960" is the first of forget01 and the
    161st of forget05), so records and span files of different splits can be compared. The retain
    evaluation set holds those of the first 400 rows of `full` that are among the retain samples:
    TOFU has paraphrased and perturbed answers for these rows only.

    Args:
        path: folder of TOFU's JSON files (JSON Lines in spite of the suffix), or hub name.
        split: forget01, forget05 or forget10.
        max_retain: use only the first n retain samples; None = all.
        holdout: split that no model read (holdout10); None = none. It is an evaluation set too.

    Raises:
        ValueError: For a missing folder, split or column, an empty file or a line that is no JSON;
            one line that names it.
    """
    if split not in TOFU_RETAIN_SPLITS:
        raise ValueError(f"data.split: want one of {', '.join(TOFU_RETAIN_SPLITS)}, got {split!r}")
    retain_split = TOFU_RETAIN_SPLITS[split]
    forget = _read_samples(path, split, at_end=True)
    perturbed = _read_samples(path, f"{split}_perturbed", at_end=True)
    if len(forget) != len(perturbed):
        raise ValueError(
            f"data.path: {split} has {len(forget)} rows, {split}_perturbed {len(perturbed)}; "
            "want the same questions"
        )
    forget = _complete(forget, split, perturbed, f"{split}_perturbed")
    retain, perturbed = _read_samples(path, retain_split), _read_samples(path, "retain_perturbed")
    retain = _complete(retain, retain_split, perturbed, "retain_perturbed")[:max_retain]
    sets = {"forget": forget, "retain": tuple(s for s in retain if s.perturbed_answers)}
    for name in ("real_authors", "world_facts"):
        sets[name] = _read_samples(path, f"{name}_perturbed", prefix=name)
    unread: tuple[Sample, ...] = ()
    if holdout:
        try:
            unread = _read_samples(path, holdout, prefix=f"tofu/{holdout}")
        except ValueError as error:
            message = str(error).replace("data.path", f"data.holdout: {holdout}", 1)
            raise ValueError(message) from None
        sets["holdout"] = unread
    return Benchmark(f"tofu/{split}", forget, retain, sets, holdout=unread)


def _complete(
    samples: tuple[Sample, ...], name: str, perturbed: tuple[Sample, ...], perturbed_name: str
) -> tuple[Sample, ...]:
    """Replace the first samples by those of the perturbed file, which must ask the same."""
    for row, (sample, other) in enumerate(zip(samples, perturbed, strict=False), 1):
        if (other.prompt, other.answer) != (sample.prompt, sample.answer):
            same = f"row {row} of {perturbed_name} is not row {row} of {name}"
            raise ValueError(f"data.path: {same}: {other.prompt!r}")
    return perturbed[: len(samples)] + samples[len(perturbed) :]


def _read_samples(
    path: str, name: str, prefix: str = "tofu", at_end: bool = False
) -> tuple[Sample, ...]:
    """Read a file of TOFU; its rows are the first of `full`, or the last (`at_end`)."""
    rows = read_place(path, name, (".json",), (name, "train"), WANTS)
    if rows is None:
        folder = os.path.expanduser(path)
        raise ValueError(f"data.path: {folder} has no {name}.json; want TOFU's files")

    def make(number: int, row: Any) -> Sample:
        prompt, answer, perturbed = get_column(row, "question"), get_column(row, "answer"), ()
        if name.endswith("_perturbed"):
            perturbed = tuple(get_column(row, "perturbed_answer", list))
        return Sample(
            id=f"{prefix}/{FULL_ROWS - len(rows) + number if at_end else number}",
            prompt=prompt,
            answer=answer,
            paraphrased_prompt=row.get("paraphrased_question"),
            paraphrased_answer=row.get("paraphrased_answer"),
            perturbed_answers=perturbed,
        )

    return make_samples(rows, f"{path}/{name}.json", make)
