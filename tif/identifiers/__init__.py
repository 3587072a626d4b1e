"""Identifiers: samples in, the same samples with `unwanted` spans out. `store` keeps the spans in a file."""

import dataclasses
from collections.abc import Sequence

from tif.data.samples import Sample, Span
from tif.schema import Identifier


def identify(cfg: Identifier, samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples with the spans that the identifier `cfg` names gives them.

    Raises:
        ValueError: One line that starts with the config key.
    """
    if cfg.kind == "precomputed":
        from tif.identifiers.precomputed import precomputed

        return precomputed(str(cfg.path), samples, cfg.rule)
    if cfg.kind == "all":
        return tuple(dataclasses.replace(s, unwanted=(Span(0, len(s.answer)),)) for s in samples)
    if any(s.unwanted is None for s in samples):
        raise ValueError("identifier.kind: gold, but this benchmark has no gold spans; want precomputed or all")
    return tuple(samples)
