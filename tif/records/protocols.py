"""The rules of an evaluation that change its numbers, by the name of the code that published them.

Read by `evaluation` and `metrics`. Sources: `legacy-tofu` is locuslab/tofu bdc209e
(data_module.py, evaluate_util.py, config/eval_everything.yaml), whose evaluation the TIF release
(xzhou98/Unlearning-TPO) and NPO (licong-lin/negative-preference-optimization) share;
`open-unlearning` is locuslab/open-unlearning d3d7cf9 (src/data/utils.py, src/evals/metrics,
configs/eval/tofu_metrics).

Where we differ: the TIF release and NPO sample their generations, and the TIF release does not
score the end token; both follow locuslab/tofu here. Its limit of 200 tokens counts the padding to
the longest prompt of a batch; ours counts the prompt's own tokens, so that the answers do not
depend on the batch.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One set of rules; written into every file of records.

    Attributes:
        name: legacy-tofu or open-unlearning.
        questions: the first n of each set are evaluated; None = all.
        max_tokens: prompt and answer are cut to this number of tokens before they are scored.
        end_after_cut: whether a text that was cut still ends with the end token. Texts that are
            not cut always do, and it is scored as an answer token.
        max_new_tokens: most tokens generated for an answer.
        prompt_counts: whether the prompt's tokens count as generated ones.
        answer_tag: whether the "Answer:" in the template's last line belongs to the "prompt", or
            to the "answer": then it is scored with the answer, and generation must produce it.
        straddling: what a token that begins in the prompt and ends in the answer belongs to; the
            blank between them is no part of the prompt.
        decoding: of generations.
        truth_ratio: form of the truth ratio in the model utility, see metrics.tofu.truth_ratio.
        epsilon: added to the denominators of probabilities and truth ratios. With 1e-10, answers
            beyond about 23 nats a token count as impossible.
        extracts_last: whether extraction strength takes an answer's last token for predicted.
        template: the prompt format.
        max_samples: eval.max_samples by set; None = what `questions` says.
    """

    name: str
    questions: int | None
    max_tokens: int
    end_after_cut: bool
    prompt_counts: bool
    answer_tag: str
    max_new_tokens: int = 200
    straddling: str = "prompt"
    decoding: str = "greedy"
    truth_ratio: str = "geometric"
    epsilon: float = 0.0
    extracts_last: bool = False
    template: str | None = None
    max_samples: Any = None


LEGACY_TOFU = Protocol(
    "legacy-tofu", 300, 200, end_after_cut=False, prompt_counts=True, answer_tag="answer"
)
OPEN_UNLEARNING = Protocol(
    "open-unlearning",
    None,
    512,
    end_after_cut=True,
    prompt_counts=False,
    answer_tag="prompt",
    epsilon=1e-10,
    extracts_last=True,
)
PROTOCOLS = {protocol.name: protocol for protocol in (LEGACY_TOFU, OPEN_UNLEARNING)}


def arithmetic_of(rules: Mapping[str, Any]) -> Protocol:
    """Return the protocol by which numbers follow from records with these rules.

    Rules of other names, or without one, add nothing to what the metrics' papers say.
    """
    return PROTOCOLS.get(str(rules.get("name")), LEGACY_TOFU)
