"""`contrastive`: a word is unwanted where the model that learned the text is surer of it than one that did not."""

from collections.abc import Sequence

from tif.config.schema import Identifier
from tif.data.samples import Sample
from tif.identifiers.causal_lm import before, scorer
from tif.identifiers.language_models import Reader, load
from tif.identifiers.windows import Done, Window, label, windows


def contrastive(cfg: Identifier, samples: Sequence[Sample], template: str) -> tuple[Sample, ...]:
    """Unwanted is a word whose log-probability rose by at least the margin (nats) from base to target model.

    Our own; the paper has no such identifier. Memorised, not merely rare: what both models know or neither does is
    general. The models may have different tokenizers, since whole words are compared. A word that a tokenizer drops has
    probability 0 there, and one that both drop is general. The default margin is a guess from invented authors
    (target and retain model of the quickstart, F1 against gold: margin 1 0.54, 3 0.58, 5 0.59, 8 0.52).

    Args:
        cfg: sections `identifier` and `identifier.contrastive`.
        samples: whose answers are labelled.
        template: as `data.template`.
    """
    own = cfg.contrastive
    target, base = load(str(own.model), False, cfg), load(str(own.base), False, cfg)
    of_target, of_base = scorer(target, cfg.tokens_per_batch), scorer(base, cfg.tokens_per_batch)

    def judge(batch: Sequence[Window], done: Done) -> list[list[bool]]:
        both = zip(of_target(batch, lambda _: None), of_base(batch, done), strict=True)
        return [[t - b >= own.margin for t, b in zip(*rows, strict=True)] for rows in both]  # inf - inf is no number

    found = windows(
        samples,
        before(target.tokenizer, template, own.context),
        lambda texts: _most(target, base, texts),
        min(target.budget(own.window_tokens), base.budget(own.window_tokens)),
        "unicode",
    )
    return label(samples, found, judge, "two causal LMs")


def _most(target: Reader, base: Reader, texts: Sequence[str]) -> list[int]:
    return [max(pair) for pair in zip(target.count(texts), base.count(texts), strict=True)]
