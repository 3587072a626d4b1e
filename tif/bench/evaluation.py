"""tif.bench what=eval: TOFU evaluated by tif and as its peers do it, set by set in turn, on the same model and samples.

Peers (locuslab/tofu, NPO, the TIF release): every answer of every question padded to 200 tokens, in batches in the
data's order, logits of all positions; generations in the data's order, left-padded, until the last row of a batch has
ended. Both score the same token sequences and generate as many tokens at most; probabilities must agree to 1e-4.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from tif.bench.process import now
from tif.config.errors import ConfigError
from tif.config.schema import Data, Model
from tif.data.benchmarks import read_benchmark
from tif.data.encoding import Encoded, Encoder
from tif.data.samples import Sample
from tif.evaluation import evaluate as evaluation
from tif.evaluation.generate import generate
from tif.models import load as models
from tif.records.protocols import OPEN_UNLEARNING
from tif.scoring.batching import choose_batching
from tif.utils.terminal import progress_bar, quiet_libraries

if TYPE_CHECKING:
    from rich.table import Table
    from transformers import PreTrainedModel

    from tif.bench.command import Bench

T = TypeVar("T")
PADDED_TO = 200  # tokens
RETAIN = 300  # questions
WAYS, PARTS = ("tif", "peers"), ("scoring", "generating")
Clocks = dict[tuple[str, str], list[float]]  # way, part: seconds, and the process's CPU seconds


@dataclasses.dataclass(frozen=True)
class Work:
    """What is measured.

    Attributes:
        questions: of each set, the first n; None = all, and 300 of the retain set.
        max_new_tokens: generated for a question.
        batch_size: the peers' texts and prompts in a batch.
        tokens_per_batch: tif's.
    """

    questions: int | None = None
    max_new_tokens: int = 200
    batch_size: int = 8
    tokens_per_batch: int = 4096


def measure(
    model: Model, data: Data, work: Work, threads: int | None = None, device: str = "cpu"
) -> list[dict[str, Any]]:
    """A row for scoring, for generating and for both.

    Args:
        model: with the path of a causal LM; one that was finetuned on TOFU, or no generation ends by itself.
        data: a benchmark with TOFU's sets.
        work: what is measured.
        threads: of a CPU; None = torch's own choice.
        device: cpu or cuda.

    Returns:
        Rows {"part", "texts", "tif_seconds", "peers_seconds", "ratio", "tif_cpu_seconds", "peers_cpu_seconds",
        "largest_difference"} (of two probabilities), and with "different_texts" the generations that differ.

    Raises:
        ConfigError: If there is no such model or data.
    """
    try:
        models.check_model(model)
        sets = read_benchmark(data).sets
    except ValueError as error:
        raise ConfigError(str(error)) from None
    quiet_libraries()
    torch.set_num_threads(threads or torch.get_num_threads())
    policy = models.load_policy(model, models.load_tokenizer(model, ()), 0).to(device).eval()  # type: ignore[arg-type]
    encoder = Encoder(models.load_tokenizer(model, ()), data.template)
    batching = choose_batching(data.batching, policy)
    used = [found[: work.questions or (RETAIN if name == "retain" else None)] for name, found in sets.items()]
    clocks: Clocks = {(way, part): [0.0, 0.0] for way in WAYS for part in PARTS}
    apart, different, texts, prompts = 0.0, 0, 0, 0
    with torch.no_grad(), progress_bar("evaluating", len(used)) as line:
        _warm(policy, encoder, used[0][0])
        for samples in used:
            losses, said = _set(policy, encoder, samples, work, batching, clocks)
            apart = max(apart, *(abs(math.exp(-a) - math.exp(-b)) for a, b in zip(*losses, strict=True)))
            different += sum(a != b for a, b in zip(*said, strict=True))
            texts, prompts = texts + len(losses[0]), prompts + len(said[0])
            line.advance()
    assert apart < (1e-4 if model.dtype == "float32" else 0.1), f"probabilities differ by {apart}"
    both = [[sum(pair) for pair in zip(*(clocks[way, part] for part in PARTS), strict=True)] for way in WAYS]
    return [
        _row("scoring", texts, [clocks[way, "scoring"] for way in WAYS]) | {"largest_difference": apart},
        _row("generating", prompts, [clocks[way, "generating"] for way in WAYS]) | {"different_texts": different},
        _row("both", texts + prompts, both),
    ]


def _set(
    policy: "PreTrainedModel",
    encoder: Encoder,
    samples: Sequence[Sample],
    work: Work,
    batching: str,
    clocks: Clocks,
) -> tuple[list[list[float]], list[list[str]]]:
    """Losses and generations of a set both ways, on the clocks."""
    texts = [e for s in samples for e in _texts(encoder, s)]
    prompts = [encoder.encode_prompt(s.prompt) for s in samples]
    losses = [
        _timed(clocks["tif", "scoring"], _scores, policy, encoder, texts, work, batching),
        _timed(clocks["peers", "scoring"], _peers_scores, policy, texts, encoder.pad_id, work.batch_size),
    ]
    limits = work.max_new_tokens, work.tokens_per_batch
    said = [
        _timed(clocks["tif", "generating"], generate, policy, encoder, prompts, *limits),
        _timed(clocks["peers", "generating"], _peers_generations, policy, encoder, prompts, work),
    ]
    return losses, said


def rows(cfg: "Bench") -> list[dict[str, Any]]:
    """As `tif.bench` calls it."""
    if cfg.model.path is None:
        raise ConfigError("model.path: want a model that was finetuned on TOFU (a Hugging Face folder), got null")
    return measure(cfg.model, cfg.data, Work(cfg.questions, cfg.max_new_tokens), cfg.threads, cfg.device)


def table(found: Sequence[dict[str, Any]]) -> "Table":
    """For the terminal."""
    from rich.table import Table

    shown = Table("", "texts", "tif (s)", "as peers do (s)", "ratio", box=None, padding=(0, 2, 0, 0))
    for row in found:
        seconds = (f"{row[f'{way}_seconds']:.1f}" for way in ("tif", "peers"))
        shown.add_row(row["part"], f"{row['texts']:,}", *seconds, f"{row['ratio']:.2f}")
    return shown


def _row(part: str, texts: int, clocks: list[list[float]]) -> dict[str, Any]:
    (ours, our_cpu), (theirs, their_cpu) = clocks
    return {
        "part": part, "texts": texts, "ratio": round(theirs / ours, 2),
        "tif_seconds": round(ours, 2), "peers_seconds": round(theirs, 2),
        "tif_cpu_seconds": round(our_cpu, 2), "peers_cpu_seconds": round(their_cpu, 2),
    }  # fmt: skip


def _timed(clock: list[float], work: Callable[..., T], policy: "PreTrainedModel", *args: Any) -> T:
    start, cpu = now(policy.device.type), time.process_time()
    found = work(policy, *args)
    clock[0] += now(policy.device.type) - start
    clock[1] += time.process_time() - cpu
    return found


def _warm(policy: "PreTrainedModel", encoder: Encoder, sample: Sample) -> None:
    """Weights are read and kernels chosen before the clock runs."""
    texts = [evaluation.encode(encoder, sample, OPEN_UNLEARNING)]
    evaluation.scored(policy, texts, [True], encoder.pad_id, 256, "padded")
    generate(policy, encoder, [encoder.encode_prompt(sample.prompt)], 2, 256)


def _texts(encoder: Encoder, sample: Sample) -> list[Encoded]:
    answers = (sample.answer, sample.paraphrased_answer, *sample.perturbed_answers)
    return [evaluation.encode(encoder, sample, OPEN_UNLEARNING, answer) for answer in answers if answer is not None]


def _scores(
    policy: "PreTrainedModel", encoder: Encoder, texts: list[Encoded], work: Work, batching: str
) -> list[float]:
    """As an evaluation of tif does it, token statistics of the first answers with it."""
    first = [i == 0 or texts[i].id != texts[i - 1].id for i in range(len(texts))]
    found = evaluation.scored(policy, texts, first, encoder.pad_id, work.tokens_per_batch, batching)
    return [answer.loss for answer in found]


def _peers_scores(policy: "PreTrainedModel", texts: list[Encoded], pad_id: int, batch_size: int) -> list[float]:
    found: list[float] = []
    for part in _batched(texts, batch_size):
        width = max(PADDED_TO, *(len(e.input_ids) for e in part))
        ids = torch.full((len(part), width), pad_id)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for row, e in enumerate(part):
            tokens = torch.tensor(e.input_ids)
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
            labels[row, : len(tokens)] = torch.where(torch.tensor(e.gw), tokens, -100)
        ids, labels, mask = (t.to(policy.device) for t in (ids, labels, mask))
        logits = policy(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none"
        )
        found += (losses.sum(1) / (labels[:, 1:] != -100).sum(1)).tolist()
    return found


def _peers_generations(policy: "PreTrainedModel", encoder: Encoder, prompts: list[list[int]], work: Work) -> list[str]:
    found: list[str] = []
    for part in _batched(prompts, work.batch_size):
        width = max(map(len, part))
        ids = torch.tensor([[encoder.eos_id] * (width - len(p)) + p for p in part], device=policy.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in part], device=policy.device)
        said: Any = policy.generate(  # type: ignore[operator]
            ids, attention_mask=mask, max_new_tokens=work.max_new_tokens, do_sample=False,
            eos_token_id=encoder.eos_id, pad_token_id=encoder.eos_id,
        )  # fmt: skip
        found += encoder.tokenizer.batch_decode(said[:, width:], skip_special_tokens=True)
    return found


def _batched(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[i : i + size] for i in range(0, len(items), size)]
