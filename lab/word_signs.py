"""Measure which scores of words tell unwanted words: AUC against gold spans.

    python -m lab.word_signs GOLD.jsonl base=MODEL [target=MODEL] [masked=MODEL] [--json]

GOLD.jsonl is a span file (`tif identify identifier.kind=gold out=GOLD.jsonl`). `base` is a causal
LM that never read the answers, `target` one that learned them, `masked` a masked LM: folders or hub
names. Each word of each answer gets these scores, with the question in sight:

surprisal      minus the log-probability of the word (nats, summed over its tokens)
entropy        of the next token's distribution where the word begins (nats)
masked         minus the log-probability of the word under `masked`, all its pieces masked
contrast       log-probability by `target` minus that by `base`
length         characters of the word: needs no model, and is what a sign must beat
capital        whether it begins with a capital letter or a digit: the same

A row has the AUC: the probability that an unwanted word has a higher score than a general one
(0.5 = the sign tells nothing), with the middle 95 % of 300 draws of answers with replacement.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from tif.config.data import PLAIN
from tif.config.identifier import make_identifier
from tif.data.samples import Sample
from tif.data.templates import read_template
from tif.identifiers import masked_lm
from tif.identifiers.language_models import LanguageModel, load_language_model
from tif.identifiers.segmentation import find_words
from tif.identifiers.span_comparison import label_units
from tif.identifiers.span_file import read_samples
from tif.identifiers.span_operations import shift_spans
from tif.models.pretrained import Source
from tif.reports.columns import markdown_table
from tif.utils.terminal import quiet_libraries, track

DRAWS = 300
Scores = list[np.ndarray]  # of each answer, a score for each of its words


def score_by_causal_lm(path: str, samples: Sequence[Sample]) -> tuple[Scores, Scores]:
    """Return the log-probability of each word (nats), and the entropy where it begins (nats)."""
    model = load_language_model(Source(path, "model"), "causal LM", make_identifier())
    prompt_format = read_template(PLAIN, model.tokenizer)
    logprobs, entropies = [], []
    for sample in track(samples, "causal LM"):
        before = prompt_format.render(sample.prompt) + prompt_format.blank
        tokens = model.tokenize(before + sample.answer)
        with torch.no_grad():
            logits_TV = model.model(torch.tensor([tokens.ids])).logits[0].float()
        logprob_TV = logits_TV.log_softmax(1)
        entropy_T = -(logprob_TV.exp() * logprob_TV).sum(1)
        own_T = logprob_TV[:-1].gather(1, torch.tensor(tokens.ids[1:])[:, None])[:, 0]
        words = [tokens.positions_of(word) for word in words_after(sample, before)]
        logprobs.append(np.array([float(own_T[[t - 1 for t in word]].sum()) for word in words]))
        entropies.append(np.array([float(entropy_T[word[0] - 1]) for word in words]))
    return logprobs, entropies


def score_by_masked_lm(path: str, samples: Sequence[Sample]) -> Scores:
    """Return the log-probability of each word (nats), all of its pieces masked at once."""
    model = load_language_model(Source(path, "masked"), "masked LM", make_identifier())
    return [mask_each_word(model, sample) for sample in track(samples, "masked LM")]


def mask_each_word(model: LanguageModel, sample: Sample) -> np.ndarray:
    """Return the log-probability of each word of an answer."""
    before = f"{sample.prompt} " if sample.prompt else ""
    tokens = model.tokenize(before + sample.answer)
    words = [tokens.positions_of(word) for word in words_after(sample, before)]
    ids_BT = torch.tensor([tokens.ids] * len(words))
    is_masked_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    for row, pieces in enumerate(words):
        is_masked_BT[row, pieces] = True
    pieces_K = ids_BT[is_masked_BT]
    ids_BT[is_masked_BT] = int(model.tokenizer.mask_token_id)
    with torch.no_grad():
        inputs = ids_BT, torch.ones_like(ids_BT), is_masked_BT
        logprob_KV = masked_lm.masked_logits(model.model, *inputs).float().log_softmax(1)
    logprob_K = logprob_KV.gather(1, pieces_K[:, None])[:, 0]
    row_K = is_masked_BT.nonzero()[:, 0]
    return torch.zeros(len(words)).index_add(0, row_K, logprob_K).numpy()


def words_after(sample: Sample, before: str) -> Iterator:
    """Return the words of the answer, as offsets into `before` and the answer."""
    return shift_spans(find_words(sample.answer), len(before))


def score_by_text(samples: Sequence[Sample], score: Callable[[str], float]) -> Scores:
    """Return a score of each word's own characters."""
    scores = []
    for sample in samples:
        words = [sample.answer[word.start : word.end] for word in find_words(sample.answer)]
        scores.append(np.array([score(word) for word in words], dtype=float))
    return scores


def measure_auc(scores: Scores, labels: Scores) -> tuple[float, float, float]:
    """Return the AUC over all words, and its interval over draws of answers."""
    pooled, is_unwanted = np.concatenate(scores), np.concatenate(labels)
    answer = np.repeat(np.arange(len(scores)), [len(row) for row in scores])
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        draw = generator.integers(len(scores), size=len(scores))
        weight = np.bincount(draw, minlength=len(scores))[answer]
        drawn.append(roc_auc_score(is_unwanted, pooled, sample_weight=weight))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(roc_auc_score(is_unwanted, pooled)), float(low), float(high)


def collect_signs(models: dict[str, str], samples: Sequence[Sample]) -> dict[str, Scores]:
    """Return the scores of all words by each sign that the models allow."""
    signs: dict[str, Scores] = {}
    logprobs: dict[str, Scores] = {}
    for name in ("base", "target"):
        if name in models:
            logprobs[name], entropies = score_by_causal_lm(models[name], samples)
            signs[f"surprisal ({name})"] = [-row for row in logprobs[name]]
            signs[f"entropy ({name})"] = entropies
    if "masked" in models:
        signs["masked"] = [-row for row in score_by_masked_lm(models["masked"], samples)]
    if len(logprobs) == 2:
        pairs = zip(logprobs["target"], logprobs["base"], strict=True)
        signs["contrast"] = [after - before for after, before in pairs]
    signs["length"] = score_by_text(samples, len)
    signs["capital"] = score_by_text(samples, lambda word: not word[0].islower())
    return signs


def main(gold: str, *words: str) -> None:
    """Print a table of the signs, or JSON."""
    quiet_libraries()
    models = dict(word.split("=", 1) for word in words if "=" in word)
    samples = read_samples(gold)
    labels = [np.array(label_units(sample)) for sample in samples]
    rows = {}
    for name, scores in collect_signs(models, samples).items():
        auc, low, high = measure_auc(scores, labels)
        rows[name] = {"auc": auc, "interval": [low, high]}
    if "--json" in words:
        print(json.dumps(rows, indent=1))
        return
    share = np.concatenate(labels).mean()
    print(f"{len(samples)} answers, {sum(map(len, labels)):,} words, {share:.1%} unwanted")
    lines = [["sign", "AUC", "95 %"]]
    for name, row in rows.items():
        low, high = row["interval"]
        lines.append([name, f"{row['auc']:.3f}", f"{low:.3f} – {high:.3f}"])
    print(markdown_table(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
