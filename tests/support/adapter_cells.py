"""What is checked of each family: references, LoRA, exports and few bits, against plain forwards.

A column is a function of a family's name that returns what was seen: "right", or "refused" where
tif stops with one line that says why. It raises AssertionError where a number is wrong.
"""

import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from tests.support import architectures, tiny_models
from tests.support.adapters import learned
from tif.config.errors import ConfigError
from tif.config.model import Lora, Model
from tif.data.encoding import collate
from tif.models import export
from tif.models import load as models
from tif.models import lora as adapters
from tif.models.references import make_reference
from tif.probes.check_model import check_model
from tif.probes.packed_rows import choose_batching
from tif.scoring.token_scores import TokenScores, score_tokens
from tif.utils.torch_state import set_training_mode

PAD = 2
LORA = Lora(rank=4)
# Longer than windows of 8, and not longer than the 16 positions before a RoPE is scaled.
TEXTS = [tiny_models.encoded(name, labels) for name, labels in
         (("a", "pppuugg"), ("b", "pugg"), ("c", "ppugguuggpuuggg"))]  # fmt: skip
BATCH = collate(TEXTS, range(len(TEXTS)), PAD)
SCORE_NAMES = ("logit", "logprob", "mean_logit")
GROWS = ("dory",)  # rounding grows in it: its exports are compared in float64
CLOSE = 1e-3  # as a share of 1 + the standard deviation of the logits


class NoTokenizer:
    """A tokenizer that writes nothing."""

    def save_pretrained(self, folder: pathlib.Path) -> None:
        """Do nothing."""


def build(family: str) -> PreTrainedModel:
    """Return the family's model with half the spread: rounding of a merge stays rounding."""
    model = architectures.build(family)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 0.5
    return model


def make_policy(family: str, lora: Lora | None = None) -> tuple[PreTrainedModel, str]:
    """Return the family's model as tif trains it, and its batching."""
    settings = Model(lora=lora or Lora())
    policy = build(family)
    export.check_export(policy, settings.lora)
    policy = models.prepare_for_training(policy, settings, seed=0)
    return policy, place_adapters(policy, settings.lora)


def place_adapters(policy: PreTrainedModel, lora: Lora) -> str:
    """Freeze adapters without a gradient, as a run does; return the batching."""
    batching = choose_batching("auto", policy, [text.input_ids for text in TEXTS])
    if lora.rank:
        adapters.freeze_idle_adapters(policy, lora.targets, BATCH, batching)
    return batching


def logits_of(model: Any, mode: Callable[[Any], Any] = PreTrainedModel.eval) -> torch.Tensor:
    """Return the logits of each text by a forward of its own, one after another."""
    mode(model)
    with torch.no_grad():
        rows = [
            model(input_ids=torch.tensor([text.input_ids]), use_cache=False).logits[0]
            for text in TEXTS
        ]
    return torch.cat(rows).float()


def plain_scores(model: Any) -> TokenScores:
    """Return token scores by the model's own forward, one text at a time."""
    columns = {
        name: torch.zeros(BATCH.input_ids.shape[0], BATCH.input_ids.shape[1] - 1)
        for name in SCORE_NAMES
    }
    start = 0
    logits = logits_of(model)
    for row, text in enumerate(TEXTS):
        stop = start + len(text.input_ids)
        z = logits[start : stop - 1]
        ids = torch.tensor(text.input_ids[1:])[:, None]
        scores = (z.gather(1, ids)[:, 0], z.log_softmax(-1).gather(1, ids)[:, 0], z.mean(-1))
        is_answer = torch.tensor([u or g for u, g in zip(text.uw, text.gw, strict=True)][1:])
        for name, values in zip(SCORE_NAMES, scores, strict=True):
            columns[name][row, : len(ids)] = values * is_answer
        start = stop
    return TokenScores(**columns)


def measure(actual: TokenScores, expected: TokenScores) -> float:
    """Return the largest difference of two models' scores."""
    return max(
        (getattr(actual, name) - getattr(expected, name)).abs().max().item() for name in SCORE_NAMES
    )


def train(policy: PreTrainedModel, batching: str) -> None:
    """Take two optimizer steps on the texts."""
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=0.02)
    policy.train()
    for _ in range(2):
        score_tokens(policy, BATCH, batching).logprob.sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def assert_references(family: str, kinds: Sequence[str], lora: Lora | None) -> None:
    """Check references before and after two steps against plain forwards of the untrained model."""
    original = build(family)
    expected, spread = plain_scores(original), logits_of(original).std().item()
    policy, batching = make_policy(family, lora)
    references = [make_reference(kind, policy, TEXTS, PAD, batching) for kind in kinds]
    errors = [measure(reference.scores(BATCH), expected) for reference in references]
    train(policy, batching)
    errors += [measure(reference.scores(BATCH), expected) for reference in references]
    assert max(errors) <= CLOSE * (1 + spread), f"WRONG by {max(errors):.2g}"
    assert measure(plain_scores(policy), expected) > 5 * CLOSE * (1 + spread), "not trained"


def assert_export(
    policy: PreTrainedModel, mode: Callable[[Any], Any] = PreTrainedModel.eval
) -> None:
    """Check the exported policy's logits in transformers alone with the policy's in a mode."""
    grows, close = policy.config.model_type in GROWS, CLOSE
    if grows and getattr(policy, "is_quantized", False):
        close *= 100
    elif grows:
        policy = policy.double()
    expected = logits_of(policy, mode)
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder) / "model"
        export.export_model(policy, NoTokenizer(), place, "card")  # type: ignore[arg-type]
        exported = transformers.AutoModelForCausalLM.from_pretrained(place)
    assert not any(".lora_" in name for name in exported.state_dict())
    error = (logits_of(exported) - expected).abs().max().item()
    assert error <= close * (1 + expected.std().item()), f"WRONG by {error:.2g}"


def check_references(family: str) -> str:
    """Cached and frozen reference, at the start and after two steps."""
    assert_references(family, ("cached", "frozen"), None)
    return "right"


def check_adapter_reference(family: str) -> str:
    """The reference that is the policy with its adapters off, at the start and after two steps."""
    assert_references(family, ("adapter",), LORA)
    return "right"


def check_lora(family: str) -> str:
    """Adapters on all linear layers: each learns; the merged export gives the policy's logits."""
    policy, batching = make_policy(family, LORA)
    learned(policy).train()
    score_tokens(policy, BATCH, batching).logprob.sum().backward()
    for name, weight in policy.named_parameters():
        if weight.requires_grad and ".experts." not in name:  # to an expert no token may go
            assert weight.grad is not None, f"no gradient: {name}"
    assert_export(policy)
    return "right"


def check_full_export(family: str) -> str:
    """The export of a policy whose weights have all been trained."""
    policy, batching = make_policy(family)
    train(policy, batching)
    assert_export(policy)
    return "right"


def check_few_bits(family: str, kind: str, weight_class: str) -> str:
    """Few bits under LoRA: the reference stays, and the export is what the policy computes with.

    In evaluation int8 rounds activations too, and an expert that is as good as another may be
    chosen by that. On a CPU it does not round them in training mode, and then the export has the
    same logits.
    """
    with tempfile.TemporaryDirectory() as folder:
        build(family).save_pretrained(folder)
        settings = Model(path=folder, quantize=kind, lora=LORA)
        check_model(settings, is_exported=True)
        policy = models.load_policy(settings, None, 0)  # type: ignore[arg-type]
        batching = place_adapters(policy, LORA)
    few = [
        name for name, weight in policy.named_parameters() if type(weight).__name__ == weight_class
    ]
    assert few, "no weight in few bits"
    reference = make_reference("adapter", policy, TEXTS, PAD, batching)
    start = reference.scores(BATCH)
    train(policy, batching)
    assert measure(reference.scores(BATCH), start) == 0, "the reference moved"
    assert_export(policy, set_training_mode if kind == "int8" else PreTrainedModel.eval)
    return "right"


def check_four_bits(family: str) -> str:
    """Weights in nf4."""
    return check_few_bits(family, "nf4", "Params4bit")


def check_eight_bits(family: str) -> str:
    """Weights in int8."""
    return check_few_bits(family, "int8", "Int8Params")


def checked(check: Callable[[str], str]) -> Callable[[str], str]:
    """Return the check with "refused" where tif refuses the model in one line."""

    def look(family: str) -> str:
        try:
            return check(family)
        except ConfigError as error:
            lines = str(error).splitlines()
        assert len(lines) == 1, lines
        return "refused"

    return look


COLUMNS: dict[str, Callable[[str], str]] = {
    "references": checked(check_references),
    "adapter reference": checked(check_adapter_reference),
    "LoRA, merged": checked(check_lora),
    "export": checked(check_full_export),
    "nf4": checked(check_four_bits),
    "int8": checked(check_eight_bits),
}
