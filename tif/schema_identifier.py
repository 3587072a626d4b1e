"""The keys of section `identifier`: who says which words are unwanted, and how each of them decides."""

import dataclasses

from tif.schema_key import key

CONTEXTS = ("prompt", "answer")
ABOUT_CONTEXT = "what is shown with the answer: prompt (the question too) or answer (nothing else)"


@dataclasses.dataclass
class RandomWords:
    """Chance: the control of an ablation."""

    share: float = key(0.3, "share of the words that are unwanted: each is drawn with this probability",
                       at_least=0, at_most=1)  # fmt: skip
    seed: int = key(0, "the draws of a sample come from (seed, its id) alone", at_least=0)


@dataclasses.dataclass
class MaskedLM:
    """A word is general where a masked LM predicts it. null = what `preset` says."""

    preset: str = key(
        "default",
        "values of the keys that are null: default, paper, released-tofu (the notebooks' rules), released-muse",
        choices=("default", "paper", "released-tofu", "released-muse"),
    )
    model: str | None = key(None, "Hugging Face folder or hub name; default: distilbert-base-uncased")
    top_k: int | None = key(None, "general: among the k likeliest; default: 1", at_least=1)
    threshold: float | None = key(
        None, "general: predicted with at least this probability; default: 0", at_least=0, at_most=1
    )
    case: str | None = key(
        None, "fold (upper and lower case are the same) or exact; default: fold", choices=("fold", "exact")
    )
    words: str | None = key(
        None,
        "unicode (without attached punctuation, any script) or blanks (what stands between blanks); default: unicode",
        choices=("unicode", "blanks"),
    )
    pieces: str | None = key(
        None,
        "a word of several pieces: whole (all masked, all must be predicted) or one (never general); default: whole",
        choices=("whole", "one"),
    )
    context: str | None = key(None, f"{ABOUT_CONTEXT}; default: prompt", choices=CONTEXTS)
    window: int | None = key(None, "tokens shown at once, at most; default: 128, released: 512", at_least=16)


@dataclasses.dataclass
class CausalLM:
    """A word is unwanted where a causal LM that never saw the forget set would not have said it."""

    model: str | None = key(None, "Hugging Face folder, hub name, or a stage's name (retain)")
    threshold: float = key(0.01, "unwanted: probability of the whole word under this", above=0, at_most=1)
    context: str = key("prompt", ABOUT_CONTEXT, choices=CONTEXTS)
    window: int = key(512, "tokens shown at once, at most", at_least=16)


@dataclasses.dataclass
class Contrastive:
    """A word is unwanted where the model that learned it exceeds one that did not: memorised, not merely rare."""

    model: str | None = key(None, "who learned it: folder, hub name or stage; null = model.path")
    base: str | None = key(None, "who did not: folder, hub name or stage (retain); null = model.base")
    margin: float = key(3.0, "unwanted: the word's log-probability is higher by at least this (nats)")
    context: str = key("prompt", ABOUT_CONTEXT, choices=CONTEXTS)
    window: int = key(512, "tokens shown at once, at most", at_least=16)


@dataclasses.dataclass
class Identifier:
    """Who says which words of the forget answers are unwanted."""

    kind: str = key(
        "gold",
        "gold: the spans the data came with; precomputed: a span file or the authors' masks; all, none, random: "
        "controls; masked_lm, causal_lm, contrastive: language models",
        choices=("gold", "precomputed", "all", "none", "random", "masked_lm", "causal_lm", "contrastive"),
    )
    path: str | None = key(None, "precomputed: span file (.jsonl) or folder of released masks")
    rule: str = key(
        "complement",
        "released masks: complement (unwanted = touches no common word, as released) or targets (touches a target)",
        choices=("complement", "targets"),
    )
    device: str = key("auto", "where the identifier's models run: cpu, cuda, cuda:1, ...; auto = cuda where there is")
    dtype: str = key("float32", "dtype of their weights", choices=("float32", "bfloat16", "float16"))
    tokens_per_batch: int = key(4096, "tokens in one batch of theirs", at_least=16)
    random: RandomWords = dataclasses.field(default_factory=RandomWords)
    masked_lm: MaskedLM = dataclasses.field(default_factory=MaskedLM)
    causal_lm: CausalLM = dataclasses.field(default_factory=CausalLM)
    contrastive: Contrastive = dataclasses.field(default_factory=Contrastive)
