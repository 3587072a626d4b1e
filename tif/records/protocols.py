"""The rules of an evaluation that change its numbers, by the name of the code that published them.

Sources: `legacy-tofu` is locuslab/tofu bdc209e (data_module.py, evaluate_util.py,
config/eval_everything.yaml), whose evaluation the TIF release (xzhou98/Unlearning-TPO) and NPO
(licong-lin/negative-preference-optimization) share; `open-unlearning` is locuslab/open-unlearning
d3d7cf9 (src/data/utils.py, src/evals/metrics, configs/eval/tofu_metrics).

Where we differ: the TIF release and NPO sample their generations, and the TIF release does not
score the end token; both follow locuslab/tofu here. Its limit of 200 tokens counts the padding to
the longest prompt of a batch; ours counts the prompt's own tokens, so that the answers do not
depend on the batch.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

# 2: labels of chats, what stands between prompt and answer, the rendered prompt; memorization of
# MUSE to the last token.
VERSION = 2
QUESTION = "{prompt}"  # stands for the question in a rendered prompt
ANSWER = "{answer}"


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
        chat_turn: whether an answer in a chat ends as the chat template ends a turn, with the end
            token after it where the turn ends otherwise, and is not cut; else it ends with the
            turn's end token alone.
        extracts_last: whether extraction strength takes an answer's last token for predicted.
        template, chat: the prompt format, as the keys of these names; chat is None for a text.
        prompt: what comes of it before the answer, with {prompt} for the question.
        decoded_prompt: the same as logs show it, without special tokens; None = not known.
        answer: what follows it, with {answer} for the answer and the end token.
        max_samples: eval.max_samples by set; None = what `questions` says.
        version: of these rules; records of another version are not compared.
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
    chat_turn: bool = False
    extracts_last: bool = False
    template: str | None = None
    chat: Any = None
    prompt: str | None = None
    decoded_prompt: str | None = None
    answer: str | None = None
    max_samples: Any = None
    version: int = VERSION


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
    chat_turn=True,
    extracts_last=True,
)
PROTOCOLS = {protocol.name: protocol for protocol in (LEGACY_TOFU, OPEN_UNLEARNING)}


def describe_unknown_rules(rules: Mapping[str, Any]) -> str | None:
    """Return in a sentence what is not known of an evaluation's rules; None if all is."""
    name = rules.get("name")
    if name is None:
        return "not recorded; the numbers are computed as in legacy-tofu"
    if name not in (*PROTOCOLS, "muse"):
        return f"{name} is not known here; the numbers are computed as in legacy-tofu"
    if len(rules) == 1:
        return f"{name}, as the form of the log says; it records no template and no other rules"
    version = rules.get("version", 1)
    if version != VERSION:
        newer = f"rules of version {version}, these are of version {VERSION}"
        return f"{name}, but the records were made by {newer}; evaluate the model again"
    return None


def arithmetic_of(rules: Mapping[str, Any]) -> Protocol:
    """Return the protocol by which numbers follow from records with these rules.

    Rules of other names, or without one, add nothing to what the metrics' papers say.
    """
    return PROTOCOLS.get(str(rules.get("name")), LEGACY_TOFU)
