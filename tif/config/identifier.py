"""Section `identifier`: who labels unwanted words, and how each kind of identifier decides."""

import dataclasses
import urllib.parse

from tif.config.keys import key
from tif.config.model import DTYPES, Model

KINDS = (
    "gold", "precomputed", "words", "all", "none", "random",
    "generative", "masked_lm", "causal_lm", "contrastive",
)  # fmt: skip
CONTEXTS = ("prompt", "answer")
OPENAI = "https://api.openai.com/v1"
LM_PLACES = "a Hugging Face folder, hub name or stage"
ABOUT_CONTEXT = "what is shown with the answer: prompt (the question too) or answer (nothing else)"

PATTERNS = ("email", "phone", "date", "number", "iban", "ssn")


@dataclasses.dataclass
class RandomWords:
    """Chance: the control of an ablation."""

    share: float = key(0.3, "probability of each word to be unwanted", at_least=0, at_most=1)
    seed: int = key(0, "the draws of a sample come from (seed, its id) alone", at_least=0)


@dataclasses.dataclass
class MaskedLM:
    """A word is general where a masked LM predicts it. null = what `preset` says."""

    preset: str = key("default", "values of the keys that are null (released-tofu: the notebooks' "
        "rules)", choices=("default", "paper", "released-tofu", "released-muse"))
    model: str | None = key(None, "folder or hub name; default: distilbert-base-uncased")
    top_k: int | None = key(None, "general: among the k likeliest; default: 1", at_least=1)
    threshold: float | None = key(None, "general: predicted with at least this probability; "
        "default: 0", at_least=0, at_most=1)
    case: str | None = key(None, "fold (upper and lower case are the same) or exact; default: fold",
        choices=("fold", "exact"))
    words: str | None = key(None, "unicode (without attached punctuation, any script) or blanks "
        "(what stands between blanks); default: unicode", choices=("unicode", "blanks"))
    pieces: str | None = key(None, "a word of several pieces: whole (all masked, all must be "
        "predicted) or one (never general); default: whole", choices=("whole", "one"))
    context: str | None = key(None, f"{ABOUT_CONTEXT}; default: prompt", choices=CONTEXTS)
    window_tokens: int | None = key(None, "tokens shown at once, at most; default: 128, released: "
        "512", at_least=16)


@dataclasses.dataclass
class CausalLM:
    """A word is unwanted where a causal LM that never saw the forget set would not have said it."""

    model: str | None = key(None, "Hugging Face folder, hub name, or a stage's name (retain)")
    threshold: float = key(0.01, "unwanted: the word is less likely", above=0, at_most=1)
    context: str = key("prompt", ABOUT_CONTEXT, choices=CONTEXTS)
    window_tokens: int = key(512, "tokens shown at once, at most", at_least=16)


@dataclasses.dataclass
class Contrastive:
    """A word is unwanted where the model that learned it gives it more than one that did not."""

    model: str | None = key(None, "who learned it: folder, hub name or stage; null = model.path")
    base: str | None = key(None, "who did not: folder, hub name or stage; null = model.base")
    margin: float = key(3.0, "unwanted: the log-probability is higher by this (nats)")
    context: str = key("prompt", ABOUT_CONTEXT, choices=CONTEXTS)
    window_tokens: int = key(512, "tokens shown at once, at most", at_least=16)


@dataclasses.dataclass
class Generative:
    """An LLM behind an OpenAI-compatible endpoint; its key comes from OPENAI_API_KEY only."""

    base_url: str = key(OPENAI, "the endpoint, up to and with /v1; a local server's is "
        "http://127.0.0.1:8000/v1")
    model: str | None = key(None, "the model's name at that endpoint")
    votes: int = key(1, "times each sample is sent; the majority counts", at_least=1, at_most=25)
    max_in_flight: int = key(8, "requests under way at once", at_least=1, at_most=1000)
    timeout_s: float = key(60.0, "seconds a request may take until its answer is complete", above=0)
    retries: int = key(5, "times a request is sent again after 429, 5xx or a lost connection "
        "(Retry-After obeyed; each counts for max_cost)", at_least=0)
    max_tokens: int = key(2048, "tokens of one answer at most, a reasoning model's thinking "
        "included", at_least=16)
    temperature: float | None = key(None, "null = the endpoint's default; votes need > 0",
        at_least=0, at_most=2)
    seed: int | None = key(0, "sent plus the number of the vote; null = not sent", at_least=0,
        at_most=2**31)
    dry_run: bool = key(False, "print requests, tokens and cost, and send nothing")
    max_cost: float | None = key(None, "stop before a request that might make all requests "
        "about these samples, of earlier runs too, cost more (in the prices' currency)", at_least=0)
    price_in: float = key(0.0, "per million prompt tokens (batch_api: its price)", at_least=0)
    price_out: float = key(0.0, "per million answer tokens (batch_api: its price)", at_least=0)
    batch_api: bool = key(False, "send everything through the provider's Batch API: cheaper, "
        "within 24 hours; for large corpora")
    window_characters: int = key(4000, "characters of a document shown at once: half of them to "
        "mark, the rest is context", at_least=200)
    cache: str = key("runs/answers", "folder of all answers ever got (by model, prompt, text, "
        "vote); none is paid twice")

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each, names without the section."""
        problems = []
        url = urllib.parse.urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            problems.append("base_url: want an address that starts with http:// or https://")
        elif url.username or url.password or url.query:
            problems.append("base_url: want no user, password or query in it; the key goes into "
                "OPENAI_API_KEY")
        if not self.model:
            problems.append(f"model: want the name of a model at {url.hostname}, got null")
        if self.max_cost is not None and not (self.price_in or self.price_out):
            problems.append("max_cost: needs price_in and price_out (per million tokens) to count "
                "with, got 0 and 0")
        if self.votes > 1 and self.temperature == 0:
            problems.append(f"votes: {self.votes} votes at temperature 0 are one; want temperature "
                "> 0 or null")
        return problems

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Return the price of so many tokens, in the currency of `price_in` and `price_out`."""
        return (self.price_in * prompt_tokens + self.price_out * answer_tokens) / 1e6


@dataclasses.dataclass
class Identifier:
    """Who says which words of the forget answers are unwanted."""

    kind: str = key("gold", "gold: the spans the data came with; precomputed: a span file or the "
        "authors' masks; words: those that you list; all, none, random: controls; generative: an "
        "LLM behind an OpenAI-compatible endpoint; masked_lm, causal_lm, contrastive: models that "
        "are loaded here", choices=KINDS)
    path: str | None = key(None, "precomputed: span file (.jsonl) or folder of released masks; "
        "words: text file, an entry a line")
    words: list[str] = key([], "words: strings as they stand in the answers, or re: and a regular "
        "expression")
    patterns: list[str] = key([], f"words: any of {', '.join(PATTERNS)}")
    rule: str = key("complement", "released masks: complement (unwanted = touches no common word, "
        "as released) or targets (touches a target)", choices=("complement", "targets"))
    grow: bool = key(False, "an unwanted passage with a capital letter or digit in it, or letters "
        "without case, is unwanted in all forget answers: samples share their entities")
    device: str = key("auto", "where its models run: cpu, cuda, cuda:1, ...; auto = cuda if any")
    dtype: str = key("float32", "dtype of their weights", choices=DTYPES)
    tokens_per_batch: int = key(4096, "tokens in one batch of theirs", at_least=16)
    random: RandomWords = dataclasses.field(default_factory=RandomWords)
    generative: Generative = dataclasses.field(default_factory=Generative)
    masked_lm: MaskedLM = dataclasses.field(default_factory=MaskedLM)
    causal_lm: CausalLM = dataclasses.field(default_factory=CausalLM)
    contrastive: Contrastive = dataclasses.field(default_factory=Contrastive)

    def find_problems(self, model: Model) -> list[str]:
        """Return the problems of the chosen kind, one line each; `model`: section `model`."""
        if self.kind == "precomputed" and not self.path:
            return ["identifier.path: precomputed needs a span file or a folder of released masks, "
                "got null"]
        if self.kind == "words":
            return self._list_problems()
        if self.kind == "generative":
            return [f"identifier.generative.{line}" for line in self.generative.find_problems()]
        if self.kind == "causal_lm" and not self.causal_lm.model:
            wanted = "a causal LM that never saw the forget set"
            return [f"identifier.causal_lm.model: want {wanted} ({LM_PLACES}), got null"]
        problems = []
        if self.kind == "contrastive" and not (self.contrastive.model or model.path):
            problems.append("identifier.contrastive.model: want the model that learned the forget "
                f"set ({LM_PLACES}), got null, and model.path is null too")
        if self.kind == "contrastive" and not (self.contrastive.base or model.base):
            problems.append("identifier.contrastive.base: want a model that did not learn the "
                f"forget set ({LM_PLACES}), got null, and model.base is null too")
        return problems

    def _list_problems(self) -> list[str]:
        known = ", ".join(PATTERNS)
        problems = []
        for name in self.patterns:
            if name not in PATTERNS:
                problems.append(f"identifier.patterns: want any of {known}, got {name!r}")
        if not (self.words or self.patterns or self.path):
            problems.append("identifier.words: kind words needs words=[...], a file (path) or "
                f"patterns ({known}), got none")
        return problems
