"""The parts of a loss term: its inputs, its registration, the means that terms share.

    @term("npo", reference=True, keys=Beta)
    def npo(inputs: Inputs, keys: Beta) -> torch.Tensor: ...

`@term` is for functions of token scores, `@per_token_term` for functions of whole distributions or
hidden states. A term of one's own, outside tif, is written in the same way and selected by
`loss.forget=module:function`.

The batch of an optimizer step may be scored in parts, on one process or several. A term's value for
a part is that part's share of the batch's value, so that the parts' values and gradients add up to
those of the batch: sums are divided by the counts of the whole batch, which `Inputs.sample_mean`
and `Inputs.token_mean` do.

Shapes: B samples, T tokens, K answer tokens, V vocabulary.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import torch

from tif.config import registry
from tif.config.keys import NoKeys, key
from tif.config.loss import Loss, keys_of
from tif.config.registry import Entry
from tif.scoring.token_scores import Outputs, PerToken, TokenScores


@dataclasses.dataclass
class Scored:
    """The scores of one batch that a loss term reads.

    Attributes:
        policy: scores, (B, T-1) each.
        reference: the original model's, where the term compares with them.
        token_values: (B, T-1) float32, values of the term's `per_token`, where it has one.
    """

    policy: TokenScores
    reference: TokenScores | None = None
    token_values: torch.Tensor | None = None


@dataclasses.dataclass
class ScoredBatch:
    """The scores of a batch's forget samples and, where read, retain samples and alternates."""

    forget: Scored
    retain: Scored | None = None
    alternate: Scored | None = None


@dataclasses.dataclass
class Inputs:
    """Inputs of a loss term.

    Attributes:
        policy, reference, token_values: as in `Scored`.
        weight: (B, T-1) float32, how much the token to predict counts: 0 or 1 for a mask of
            unwanted words.
        alternate: the same of each prompt with an alternate (a refusal, or another answer), all of
            whose tokens count; where the term asks for it.
        samples: of the whole batch, of which these may be a part; None = these.
        weight_sum: () sum of the weights of the whole batch; None = of these.
        micro_batch: samples that `group_sum` adds up; None = all.
    """

    policy: TokenScores
    weight: torch.Tensor
    reference: TokenScores | None = None
    token_values: torch.Tensor | None = None
    alternate: "Inputs | None" = None
    samples: int | None = None
    weight_sum: torch.Tensor | None = None
    micro_batch: int | None = None

    def token_mean(self, values: torch.Tensor | None) -> torch.Tensor:
        """Return the weighted mean of (B, T-1) values over the batch's tokens; 0 without any."""
        assert values is not None  # the term declares that it needs them
        weight_sum = self.weight.sum() if self.weight_sum is None else self.weight_sum
        return (values * self.weight).sum() / or_one(weight_sum)

    def sample_mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of (B,) values over the batch's samples; those without a token add 0."""
        return torch.where((self.weight != 0).any(1), values,
            0).sum() / (self.samples or len(values))

    def group_sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return (B,): for each sample the sum of (B,) values over the samples of its group."""
        groups = values.split(self.micro_batch or len(values))
        return torch.cat([group.sum().expand(len(group)) for group in groups])

    def mean_in_sample(self, values: torch.Tensor | None) -> torch.Tensor:
        """Return (B,) weighted means of (B, T-1) values in each sample; 0 without tokens."""
        assert values is not None
        return (values * self.weight).sum(1) / or_one(self.weight.sum(1))


def or_one(total: torch.Tensor) -> torch.Tensor:
    """Return a sum of weights as a divisor: 1 in place of 0."""
    return torch.where(total == 0, 1, total)


def nll(scores: TokenScores | None, weight: torch.Tensor) -> torch.Tensor:
    """Return (B,) negative log-likelihoods of the samples' counting tokens (nats)."""
    assert scores is not None  # the term declares that it needs them
    return -(scores.logprob * weight).sum(1)


@dataclasses.dataclass
class Beta:
    """`loss.beta`, which several terms share."""

    beta: float = key(0.3, "lpl, npo, simnpo, dpo, kto: larger saturates sooner; undial: logits "
        "taken from the true token; wga, satimp: power of its probability", above=0)


@dataclasses.dataclass(frozen=True)
class Term(Entry):
    """A forget or retain term and what it needs; calling it gives its value.

    Attributes:
        value: (inputs, keys) -> scalar to minimise, the share of these samples in the batch's;
            finite, and 0 without gradient, where no token counts.
        reference: whether it reads the original model's token scores.
        alternate: whether it reads the scores of alternates.
        per_token: section `loss` -> what is computed at each answer token, `Inputs.token_values`.
        has_groups: keys -> whether samples enter each other's value in other ways than a mean: it
            calls `Inputs.group_sum`, and `loss.micro_batch` samples are scored together.
    """

    value: Callable[[Inputs, Any], torch.Tensor]
    reference: bool = False
    alternate: bool = False
    per_token: Callable[[Loss], PerToken] | None = None
    has_groups: Callable[[Any], bool] = lambda keys: False

    def __call__(self, inputs: Inputs, loss: Loss) -> torch.Tensor:
        """Return the term's value under the keys of section `loss`."""
        return self.value(inputs, keys_of(loss, self.keys))


FORGET = cast("dict[str, Term]", registry.TABLES["forget"])
RETAIN = cast("dict[str, Term]", registry.TABLES["retain"])


def term(
    name: str, role: str = "forget", keys: type = NoKeys, **needs: Any
) -> Callable[[Callable[[Inputs, Any], torch.Tensor]], Term]:
    """Register a function of (inputs, keys) as a term.

    Args:
        name: the value of `loss.forget` (or `loss.retain`) that selects it.
        role: "forget", "retain" or "both".
        keys: dataclass of the keys of section `loss` that it reads.
        needs: the `Term`'s other fields.
    """

    def decorate(function: Callable[[Inputs, Any], torch.Tensor]) -> Term:
        documented = function.__doc__ or ""
        return _register(Term(name, keys, documented, function.__module__, function, **needs), role)

    return decorate


def per_token_term(
    name: str,
    role: str = "forget",
    keys: type = NoKeys,
    reduction: str = "token",
    layer: Callable[[Any], int] | None = None,
    **outputs: bool,
) -> Callable[[Callable[[Outputs, Any, Any], torch.Tensor]], Term]:
    """Register a function of (policy's outputs, original's outputs, keys) -> (K,) values as a term.

    The term's value is the mean of the values. `tif.scoring` computes them for a few samples at a
    time, so that no (B, T, V) tensor is in memory.

    Args:
        name, role, keys: as for `term`.
        reduction: "token": mean over the batch's tokens; "sample": mean over samples of their
            means.
        layer: keys -> the decoder layer whose hidden states it reads, counted from 0.
        outputs: `PerToken`'s other fields: reference, lowered.
    """

    def mean(inputs: Inputs, _: Any) -> torch.Tensor:
        if reduction == "token":
            return inputs.token_mean(inputs.token_values)
        return inputs.sample_mean(inputs.mean_in_sample(inputs.token_values))

    def decorate(function: Callable[[Outputs, Any, Any], torch.Tensor]) -> Term:
        def per_token(loss: Loss) -> PerToken:
            values: Any = keys_of(loss, keys)
            hidden_layer = layer(values) if layer else None
            return PerToken(lambda policy, reference: function(policy, reference, values),
                layer=hidden_layer, **outputs)

        documented = function.__doc__ or ""
        return _register(Term(name, keys, documented, function.__module__, mean,
            per_token=per_token), role)

    return decorate


def _register(registered: Term, role: str) -> Term:
    """Add a term to the tables of its role."""
    for kind in ("forget", "retain"):
        if role in (kind, "both"):
            registry.register(kind, registered)
    return registered
