"""what=eval: TOFU evaluated by tif and in the way of its peers, on the same model and samples.

Peers (locuslab/tofu, NPO, the TIF release): every answer of every question padded to 200 tokens,
in batches in the data's order, logits of all positions; generations in the data's order,
left-padded, until the last row of a batch has ended. Both ways score the same token sequences and
generate at most as many tokens. The sets are taken in turn, so that both ways see the machine
alike.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table

from tif.bench.process import read_clock
from tif.bench.settings import BenchSettings
from tif.bench.table import make_plain_table
from tif.config.errors import ConfigError
from tif.config.evaluation import EvalRules
from tif.data.benchmarks import read_benchmark
from tif.data.encoding import Encoded, Encoder
from tif.data.samples import Sample
from tif.evaluation import token_stats
from tif.evaluation.generate import generate
from tif.evaluation.questions import EvaluationSetup
from tif.evaluation.tofu_prompts import encode_answer
from tif.models import load as models
from tif.records.protocols import OPEN_UNLEARNING
from tif.scoring.batching import choose_batching
from tif.utils.terminal import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PADDED_TO = 200  # tokens of a text, in the peers' way
PEERS_BATCH_SIZE = 8  # texts or prompts
TOKENS_PER_BATCH = 4096  # tif's
RETAIN_QUESTIONS = 300
TOLERANCES = {"float32": 1e-4}  # largest difference of two probabilities
TOLERANCE_FEW_BITS = 0.1
IGNORED = -100  # label of a token that does not count


@dataclasses.dataclass
class Clock:
    """Seconds of one way, and CPU seconds of the process."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @contextlib.contextmanager
    def running(self, device: str) -> Iterator[None]:
        """Add the time of the block."""
        start, cpu_start = read_clock(device), time.process_time()
        yield
        self.seconds += read_clock(device) - start
        self.cpu_seconds += time.process_time() - cpu_start


@dataclasses.dataclass
class Comparison:
    """One part of the work, done both ways."""

    part: str
    texts: int = 0
    tif: Clock = dataclasses.field(default_factory=Clock)
    peers: Clock = dataclasses.field(default_factory=Clock)

    def row(self) -> dict[str, Any]:
        """Return the row of the table."""
        return {
            "part": self.part,
            "texts": self.texts,
            "ratio": round(self.peers.seconds / self.tif.seconds, 2),
            "tif_seconds": round(self.tif.seconds, 2),
            "peers_seconds": round(self.peers.seconds, 2),
            "tif_cpu_seconds": round(self.tif.cpu_seconds, 2),
            "peers_cpu_seconds": round(self.peers.cpu_seconds, 2),
        }


def measure(settings: BenchSettings) -> list[dict[str, Any]]:
    """Return a row for scoring, for generating and for both.

    Keys: those of `Comparison.row`; largest_difference of two probabilities; different_texts: the
    generations that differ.

    Raises:
        ConfigError: If there is no such model or data.
        AssertionError: If the ways give different probabilities.
    """
    if settings.model.path is None:
        wanted = "want a model that was finetuned on TOFU (a Hugging Face folder)"
        raise ConfigError(f"model.path: {wanted}, got null")
    try:
        models.check_model(settings.model)
        sets = read_benchmark(settings.data).sets
    except ValueError as error:
        raise ConfigError(str(error)) from None
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    tokenizer = models.load_tokenizer(settings.model, ())
    policy = models.load_policy(settings.model, tokenizer, 0)
    policy.to(settings.device).eval()  # type: ignore[arg-type]
    bench = EvaluationBench(settings, policy, Encoder(tokenizer, settings.data.template))
    with torch.no_grad(), progress_bar("evaluating", len(sets)) as progress:
        for name, samples in sets.items():
            limit = settings.questions or (RETAIN_QUESTIONS if name == "retain" else None)
            bench.compare(samples[:limit])
            progress.advance()
    return bench.rows()


class EvaluationBench:
    """Evaluates sets of samples both ways.

    Args:
        settings: data.batching, max_new_tokens and device are read.
        policy: in evaluation mode, on its device.
        encoder: with its tokenizer.
    """

    def __init__(
        self, settings: BenchSettings, policy: "PreTrainedModel", encoder: Encoder
    ) -> None:
        self.policy = policy
        self.encoder = encoder
        self.device = settings.device
        self.max_new_tokens = settings.max_new_tokens
        self.batching = choose_batching(settings.data.batching, policy)
        self.tolerance = TOLERANCES.get(settings.model.dtype, TOLERANCE_FEW_BITS)
        self.scoring = Comparison("scoring")
        self.generating = Comparison("generating")
        self.largest_difference = 0.0
        self.different_texts = 0

    def compare(self, samples: Sequence[Sample]) -> None:
        """Score and answer the samples both ways."""
        if self.scoring.texts == 0:
            self._warm_up(samples[0])
        texts: list[Encoded] = []
        for sample in samples:
            texts += self._encode_answers(sample)
        with self.scoring.tif.running(self.device):
            losses = score_texts(self.policy, texts, self.encoder, self.batching)
        with self.scoring.peers.running(self.device):
            peers_losses = score_padded(self.policy, texts, self.encoder.pad_id)
        for loss, peers_loss in zip(losses, peers_losses, strict=True):
            difference = abs(math.exp(-loss) - math.exp(-peers_loss))
            self.largest_difference = max(self.largest_difference, difference)
        self.scoring.texts += len(texts)

        prompts = [self.encoder.encode_prompt(sample.prompt) for sample in samples]
        limits = [self.max_new_tokens] * len(prompts)
        with self.generating.tif.running(self.device):
            answers = generate(self.policy, self.encoder, prompts, limits, TOKENS_PER_BATCH)
        with self.generating.peers.running(self.device):
            peers_answers = generate_padded(self.policy, self.encoder, prompts, self.max_new_tokens)
        for answer, peers_answer in zip(answers, peers_answers, strict=True):
            self.different_texts += answer != peers_answer
        self.generating.texts += len(prompts)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows for scoring, generating and both.

        Raises:
            AssertionError: If the probabilities differ.
        """
        difference = self.largest_difference
        assert difference < self.tolerance, f"probabilities differ by {difference}"
        both = Comparison("both")
        for part in (self.scoring, self.generating):
            both.texts += part.texts
            for total, clock in ((both.tif, part.tif), (both.peers, part.peers)):
                total.seconds += clock.seconds
                total.cpu_seconds += clock.cpu_seconds
        return [
            {**self.scoring.row(), "largest_difference": difference},
            {**self.generating.row(), "different_texts": self.different_texts},
            both.row(),
        ]

    def _encode_answers(self, sample: Sample) -> list[Encoded]:
        """Return the sample's answer and the answers that it is compared with."""
        answers = (sample.answer, sample.paraphrased_answer, *sample.perturbed_answers)
        return [
            encode_answer(self.encoder, sample, OPEN_UNLEARNING, answer)
            for answer in answers
            if answer is not None
        ]

    def _warm_up(self, sample: Sample) -> None:
        """Let weights be read and kernels chosen before the clocks run."""
        texts = self._encode_answers(sample)[:1]
        score_texts(self.policy, texts, self.encoder, "padded")
        prompts = [self.encoder.encode_prompt(sample.prompt)]
        generate(self.policy, self.encoder, prompts, [2], TOKENS_PER_BATCH)


def score_texts(
    policy: "PreTrainedModel", texts: Sequence[Encoded], encoder: Encoder, batching: str
) -> list[float]:
    """Return the loss of each text as tif's evaluation has it, in nats per answer token.

    With token statistics of each sample's first answer, as an evaluation keeps them.
    """
    is_first = []
    for i, text in enumerate(texts):
        is_first.append(i == 0 or text.id != texts[i - 1].id)
    setup = EvaluationSetup(encoder, EvalRules(tokens_per_batch=TOKENS_PER_BATCH), batching)
    scores = token_stats.score_texts(policy, texts, is_first, setup)
    return [score.loss for score in scores]


def score_padded(policy: "PreTrainedModel", texts: Sequence[Encoded], pad_id: int) -> list[float]:
    """Return the same losses as peers compute them."""
    losses: list[float] = []
    for start in range(0, len(texts), PEERS_BATCH_SIZE):
        part = texts[start : start + PEERS_BATCH_SIZE]
        width = max(PADDED_TO, *(len(text.input_ids) for text in part))
        ids = torch.full((len(part), width), pad_id)
        labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        for row, text in enumerate(part):
            length = len(text.input_ids)
            tokens = torch.tensor(text.input_ids)
            ids[row, :length] = tokens
            mask[row, :length] = 1
            labels[row, :length] = torch.where(torch.tensor(text.gw), tokens, IGNORED)
        ids, labels, mask = (tensor.to(policy.device) for tensor in (ids, labels, mask))
        logits = policy(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
        nll = torch.nn.functional.cross_entropy(
            logits[:, :-1].mT, labels[:, 1:], ignore_index=IGNORED, reduction="none"
        )
        losses += (nll.sum(1) / (labels[:, 1:] != IGNORED).sum(1)).tolist()
    return losses


def generate_padded(
    policy: "PreTrainedModel", encoder: Encoder, prompts: Sequence[list[int]], max_new_tokens: int
) -> list[str]:
    """Return greedy answers as peers generate them."""
    answers: list[str] = []
    for start in range(0, len(prompts), PEERS_BATCH_SIZE):
        part = prompts[start : start + PEERS_BATCH_SIZE]
        width = max(map(len, part))
        ids = torch.full((len(part), width), encoder.eos_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(part):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        generated: Any = policy.generate(  # type: ignore[operator]
            ids.to(policy.device),
            attention_mask=mask.to(policy.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=encoder.eos_id,
            pad_token_id=encoder.eos_id,
        )
        new_tokens = generated[:, width:]
        answers += encoder.tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
    return answers


def make_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the table for the terminal."""
    columns = {
        "": "{part}",
        "texts": "{texts:,}",
        "tif (s)": "{tif_seconds:.1f}",
        "as peers do (s)": "{peers_seconds:.1f}",
        "ratio": "{ratio:.2f}",
    }
    return make_plain_table(rows, columns)
