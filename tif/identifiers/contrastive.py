"""`kind: contrastive`: a word is unwanted where a model that learned the text is surer of it.

Called by `identify` of this room. Compares the model that learned the text with one that did not.
"""

from collections.abc import Sequence

from tif.config.identifier import Contrastive, Identifier
from tif.data.samples import Sample
from tif.data.templates import Prompts
from tif.identifiers.causal_lm import WordScorer, choose_text_before
from tif.identifiers.language_models import load_language_model
from tif.identifiers.windows import ReportWords, Window, label_words, make_windows
from tif.models.pretrained import Source


def identify_by_contrast(
    settings: Contrastive, samples: Sequence[Sample], identifier: Identifier, prompts: Prompts
) -> tuple[Sample, ...]:
    """Mark words whose log-probability rose by at least the margin (nats) from base to target.

    Our own; the paper has no such identifier. Memorised, not merely rare: what both models know or
    neither does is general. The models may have different tokenizers, since entire words are
    compared. A word that a tokenizer drops has probability 0 there, and one that both drop is
    general. The default margin is a guess from invented authors (target and retain model of the
    quickstart, F1 against gold: margin 1 0.54, 3 0.58, 5 0.59, 8 0.52). `prompts`: keys
    `data.template` and `data.chat`.
    """
    section = "identifier.contrastive"
    target_source = Source(str(settings.model), f"{section}.model")
    base_source = Source(str(settings.base), f"{section}.base")
    target = load_language_model(target_source, "causal LM", identifier)
    base = load_language_model(base_source, "causal LM", identifier)
    target_scorer = WordScorer(target, identifier.tokens_per_batch)
    base_scorer = WordScorer(base, identifier.tokens_per_batch)

    def judge(batch: Sequence[Window], report: ReportWords) -> list[list[bool]]:
        target_rows = target_scorer.score(batch, lambda _: None)
        base_rows = base_scorer.score(batch, report)
        verdicts = []
        for target_row, base_row in zip(target_rows, base_rows, strict=True):
            pairs = zip(target_row, base_row, strict=True)
            # Where both are -inf the difference is NaN, which is no rise.
            verdicts.append([after - before >= settings.margin for after, before in pairs])
        return verdicts

    def count_tokens(texts: Sequence[str]) -> list[int]:
        return list(map(max, target.count_tokens(texts), base.count_tokens(texts)))

    text_before = choose_text_before(target.tokenizer, prompts, settings.context)
    budget = min(model.text_budget(settings.window_tokens) for model in (target, base))
    windows = make_windows(samples, text_before, count_tokens, budget)
    return label_words(samples, windows, judge, "two causal LMs")
