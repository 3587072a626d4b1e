"""what=eval: TOFU evaluated by tif and in the way of its peers, on the same model and samples.

Peers (locuslab/tofu, NPO, the TIF release): every answer of every question padded to 200 tokens,
in batches in the data's order, logits of all positions; generations in the data's order,
left-padded, until the last row of a batch has ended. Both ways score the same token sequences and
generate at most as many tokens. The sets are taken in turn, so that both see the machine alike.
"""

import contextlib
import dataclasses
import itertools
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from lab.speed.settings import SpeedSettings
from lab.speed.ways import IGNORED, compute_logits, pad_batch
from tif.bench.process import read_clock
from tif.config.errors import ConfigError
from tif.config.evaluation import EvalRules
from tif.data.benchmarks import read_benchmark
from tif.data.encoding import Encoded, Encoder, collate
from tif.evaluation import token_stats
from tif.evaluation.generate import Decoding, choose_mode, generate
from tif.evaluation.questions import EvaluationSetup, Question, list_longest_texts
from tif.evaluation.tofu_prompts import ask_question
from tif.models import load as models
from tif.probes.check_model import check_model
from tif.probes.packed_rows import choose_batching
from tif.probes.small_copy import RowSettings
from tif.records.protocols import OPEN_UNLEARNING
from tif.utils.terminal import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PADDED_TO = 200  # tokens of a text, in the peers' way
PEERS_BATCH_SIZE = 8  # texts or prompts
TOKENS_PER_BATCH = 4096  # tif's
RETAIN_QUESTIONS = 300
TOLERANCES = {"float32": 1e-4}  # largest difference of two probabilities
TOLERANCE_FEW_BITS = 0.1
COLUMNS = {
    "": "{part}",
    "texts": "{texts:,}",
    "tif (s)": "{tif_seconds:.1f}",
    "as peers do (s)": "{peers_seconds:.1f}",
    "ratio": "{ratio:.2f}",
}


class Clock:
    """Seconds, and CPU seconds of the process, of each way and part of the work."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def running(self, way: str, part: str) -> Iterator[None]:
        """Add the time of the block to the part, and to the part "both"."""
        start, cpu_start = read_clock(self.device), time.process_time()
        yield
        seconds, cpu_seconds = read_clock(self.device) - start, time.process_time() - cpu_start
        for name in (part, "both"):
            self.seconds[f"{name} {way}_seconds"] += seconds
            self.seconds[f"{name} {way}_cpu_seconds"] += cpu_seconds

    def row(self, part: str) -> dict[str, Any]:
        """Return the part's seconds of both ways and their ratio."""
        row: dict[str, Any] = {"part": part}
        for key in ("tif_seconds", "peers_seconds", "tif_cpu_seconds", "peers_cpu_seconds"):
            row[key] = round(self.seconds[f"{part} {key}"], 2)
        peers, ours = self.seconds[f"{part} peers_seconds"], self.seconds[f"{part} tif_seconds"]
        return row | {"ratio": round(peers / ours, 2)}


def measure(settings: SpeedSettings) -> list[dict[str, Any]]:
    """Return a row for scoring, for generating and for both.

    Keys: part, texts, seconds and CPU seconds of both ways, ratio; largest_difference of two
    probabilities; different_texts: the generations that differ.

    Raises:
        ConfigError: If there is no such model or data.
        AssertionError: If the ways give different probabilities.
    """
    if settings.model.path is None:
        wanted = "want a model that was finetuned on TOFU (a Hugging Face folder)"
        raise ConfigError(f"model.path: {wanted}, got null")
    try:
        check_model(settings.model, rows=RowSettings(settings.data.batching, settings.device))
        sets = read_benchmark(settings.data).sets
    except ValueError as error:
        raise ConfigError(str(error)) from None
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    tokenizer = models.load_tokenizer(settings.model, ())
    device = torch.device(settings.device)
    policy = models.load_policy(settings.model, tokenizer, 0, device=device)
    models.move_model(policy, device).eval()
    encoder = Encoder(tokenizer, settings.data.prompts)
    rules = EvalRules(tokens_per_batch=TOKENS_PER_BATCH)
    longest = list_longest_texts(encoder, sets)
    batching = choose_batching(settings.data.batching, policy, longest)
    setup = EvaluationSetup(encoder, rules, batching)
    protocol = dataclasses.replace(OPEN_UNLEARNING, max_new_tokens=settings.max_new_tokens)

    questions_of_sets: list[list[Question]] = []
    for name, samples in sets.items():
        limit = settings.questions or (RETAIN_QUESTIONS if name == "retain" else None)
        few = samples[:limit]
        questions_of_sets.append([ask_question(encoder, sample, protocol) for sample in few])
    clock, differences = Clock(settings.device), [0.0]
    texts, prompts, different_texts = 0, 0, 0
    with torch.no_grad(), progress_bar("evaluating", len(sets)) as progress:
        # Weights are read and kernels chosen before the clock runs.
        score_answers(Clock(settings.device), policy, questions_of_sets[0][:1], setup)
        all_questions = itertools.chain.from_iterable(questions_of_sets)
        all_prompts = [question.prompt_ids for question in all_questions]
        choose_mode(policy, all_prompts[:1])
        with clock.running("tif", "generating"):  # once for all sets, as in evaluate.py
            decoding = Decoding(TOKENS_PER_BATCH, mode=choose_mode(policy, all_prompts))
        for questions in questions_of_sets:
            losses = score_answers(clock, policy, questions, setup)
            differences += [abs(math.exp(-ours) - math.exp(-theirs)) for ours, theirs in losses]
            answers = generate_answers(clock, policy, questions, encoder, decoding)
            different_texts += sum(ours != theirs for ours, theirs in answers)
            texts, prompts = texts + len(losses), prompts + len(answers)
            progress.advance()
    largest = max(differences)
    tolerance = TOLERANCES.get(settings.model.dtype, TOLERANCE_FEW_BITS)
    assert largest < tolerance, f"probabilities differ by {largest}"
    return [
        {**clock.row("scoring"), "texts": texts, "largest_difference": largest},
        {**clock.row("generating"), "texts": prompts, "different_texts": different_texts},
        {**clock.row("both"), "texts": texts + prompts},
    ]


def score_answers(
    clock: Clock, policy: "PreTrainedModel", questions: Sequence[Question], setup: EvaluationSetup
) -> list[tuple[float, float]]:
    """Return the loss of each answer, in nats per token, by tif and by the peers' way.

    tif keeps token statistics of each question's first answer, as its evaluation does.
    """
    texts: list[Encoded] = []
    wants_stats: list[bool] = []
    for question in questions:
        texts += question.texts
        wants_stats += [number == 0 for number in range(len(question.texts))]
    with clock.running("tif", "scoring"):
        scores = token_stats.score_texts(policy, texts, wants_stats, setup)
    with clock.running("peers", "scoring"):
        losses = score_padded(policy, texts, setup.encoder.pad_id)
    return list(zip([score.loss for score in scores], losses, strict=True))


def generate_answers(
    clock: Clock,
    policy: "PreTrainedModel",
    questions: Sequence[Question],
    encoder: Encoder,
    decoding: Decoding,
) -> list[tuple[str, str]]:
    """Return the generated answer to each question by tif and by the peers' way."""
    prompts = [question.prompt_ids for question in questions]
    limits = [question.max_new_tokens for question in questions]
    with clock.running("tif", "generating"):
        ours = generate(policy, encoder, prompts, limits, decoding)
    with clock.running("peers", "generating"):
        theirs = generate_padded(policy, encoder, prompts, max(limits))
    return list(zip(ours, theirs, strict=True))


def score_padded(policy: "PreTrainedModel", texts: Sequence[Encoded], pad_id: int) -> list[float]:
    """Return the same losses as peers compute them."""
    losses: list[float] = []
    for start in range(0, len(texts), PEERS_BATCH_SIZE):
        part = texts[start : start + PEERS_BATCH_SIZE]
        batch = collate(part, range(len(part)), pad_id).to(policy.device)
        batch = pad_batch(batch, max(PADDED_TO, batch.input_ids.shape[1]))
        logits = compute_logits(policy, batch)
        answer = batch.answer[:, 1:]
        labels = batch.input_ids[:, 1:].masked_fill(~answer, IGNORED)
        nll = cross_entropy(logits[:, :-1].mT, labels, ignore_index=IGNORED, reduction="none")
        losses += (nll.sum(1) / answer.sum(1)).tolist()
    return losses


def generate_padded(
    policy: "PreTrainedModel", encoder: Encoder, prompts: Sequence[list[int]], max_new_tokens: int
) -> list[str]:
    """Return greedy answers as peers generate them."""
    answers: list[str] = []
    end = encoder.eos_id
    for start in range(0, len(prompts), PEERS_BATCH_SIZE):
        part = prompts[start : start + PEERS_BATCH_SIZE]
        width = max(map(len, part))
        ids = torch.full((len(part), width), end, device=policy.device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(part):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        generated: Any = policy.generate(  # type: ignore[operator]
            ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False,
            eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
        texts = encoder.tokenizer.batch_decode(generated[:, width:], skip_special_tokens=True)
        answers += texts
    return answers
