"""`tif.identify` and `Spans`: samples with unwanted words, in colour in notebooks."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.api import settings as words
from tif.api.samples import Samples, read_samples
from tif.config import load as config
from tif.config.command_keys import Identify
from tif.config.errors import ConfigError
from tif.config.schema import Config
from tif.data.samples import Sample
from tif.identifiers import describe_settings, span_cache
from tif.identifiers.span_comparison import count_units, score_against_gold
from tif.identifiers.span_display import render_samples, summarize
from tif.identifiers.span_file import read_samples as read_span_file
from tif.identifiers.span_file import write_spans


class Spans(Sequence[Sample]):
    """Samples with their unwanted words: a sequence of `tif.Sample`s, for `tif.unlearn(forget=)`.

    Attributes:
        samples: each with `unwanted`, its spans.
        identifier: the settings that made them.
    """

    def __init__(self, samples: Sequence[Sample], identifier: Mapping[str, Any]) -> None:
        self.samples, self.identifier = tuple(samples), dict(identifier)

    @property
    def words(self) -> list[list[str]]:
        """Return the unwanted stretches of each sample's answer."""
        return [
            [sample.answer[span.start : span.end] for span in sample.unwanted or ()]
            for sample in self.samples
        ]

    @property
    def share(self) -> float:
        """Return the share of all words that is unwanted, 0 to 1."""
        return count_units(self.samples).unwanted_share

    def compare(self, gold: Samples) -> dict[str, float | None]:
        """Return precision, recall and F1 of the unwanted words against the right ones.

        Higher is better; None = 0 / 0.

        Args:
            gold: the same texts with the right words: spans, a list of samples in any form that
                `tif.unlearn` takes, or the path of a span file. More texts do no harm.

        Raises:
            ValueError: If it is none of these, lacks a text, or says of one no unwanted words.
        """
        if isinstance(gold, str | Path):
            samples = read_span_file(gold)
        else:
            samples = read_samples("gold", gold)
        by_text = {(sample.prompt, sample.answer): sample.unwanted for sample in samples}
        expected = []
        for sample in self.samples:
            spans = by_text.get((sample.prompt, sample.answer))
            if spans is None:
                wanted = "want the same texts, with the right words in [[marks]]"
                raise ValueError(f"gold: no unwanted words of {sample.answer!r:.60}; {wanted}")
            expected.append(dataclasses.replace(sample, unwanted=spans))
        unwanted = count_units(self.samples).unwanted
        return score_against_gold(unwanted, count_units(expected).unwanted)

    def save(self, path: str | Path) -> Path:
        """Write a span file (.jsonl), for `identifier.kind=precomputed identifier.path=...`."""
        write_spans(path, self.samples, self.identifier)
        return Path(path)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Spans(self.samples[index], self.identifier)
        return self.samples[index]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def summary(self) -> str:
        """Return the numbers of samples and of unwanted words in a line."""
        return summarize(self.samples)

    def __repr__(self) -> str:
        return f"Spans by {self.identifier.get('kind')}: {self.summary}"

    def _repr_html_(self) -> str:
        return render_samples(f"{self.identifier.get('kind')}: {self.summary}", self.samples)


def identify(
    samples: Samples,
    identifier: words.IdentifierLike | None = None,
    settings: Sequence[str] | str = (),
    **keys: Any,
) -> Spans:
    """Find the unwanted words of samples; return the samples with their spans.

    That is `tif identify`. What a model or an LLM found is stored in <run.folder>/spans
    and read the next time.

    Args:
        samples: in all forms that `tif.unlearn` takes.
        identifier: a kind ("masked_lm", "causal_lm", "generative", ...), a list of words and
            patterns, or a dict of section `identifier`. None = the [[marks]] in the samples.
        settings: further words of the command line.
        keys: keys of the configuration, as `**{"identifier.causal_lm.model": MODEL}`.

    Raises:
        ConfigError: With one line for each problem, before weights load.
    """
    from tif.evaluation.prompt_format import resolve_template
    from tif.training.plan import check_identifier
    from tif.utils.terminal import quiet_libraries

    given = [
        *words.describe_identifier(identifier), *words.read_words(settings),
        *words.list_words(keys),
    ]  # fmt: skip

    def configure() -> Identify:
        cfg = resolve_template(config.read(Identify, given))
        check_identifier(cfg)
        return cfg

    read, cfg = words.call_all(lambda: read_samples("samples", samples), configure)
    quiet_libraries()
    try:
        return find_spans(cfg, read)[0]
    except ValueError as error:
        raise ConfigError(str(error)) from None


def find_spans(cfg: Config, samples: tuple[Sample, ...]) -> tuple[Spans, Path]:
    """Find the unwanted words as a checked configuration says; make the stages that it asks.

    Returns:
        The samples with their spans, and the file in which a costly identifier's are stored.

    Raises:
        ValueError: If the identifier cannot do its work; one line.
    """
    from tif.training import plan as planning
    from tif.training.inputs import make_stage

    plans = [planning.plan_stage(cfg, name) for name in planning.identifier_stages(cfg)]
    stages = {str(plan.stage): make_stage(plan) for plan in plans}
    identifier = span_cache.with_stage_models(planning.identifier_of(cfg), stages)
    prompts, folder = cfg.data.prompts, Path(cfg.run.folder) / "spans"
    identified = span_cache.identify_once(identifier, samples, prompts, folder)
    path = span_cache.span_path(identifier, samples, prompts, folder)
    return Spans(identified, describe_settings(identifier, prompts)), path
