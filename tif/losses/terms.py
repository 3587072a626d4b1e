"""What a term of a loss is made from: `Term`, what it sees, and the means that terms share.

The batch of an optimizer step may be scored in parts, on one process or several. A term's value for a part is that
part's share of the batch's value, so that the parts' values and gradients add up to those of the batch in one piece:
sums are divided by the sizes of the whole batch, which `Inputs.sample_mean` and `Inputs.token_mean` do.

Shapes: B samples, T tokens, K answer tokens, V vocabulary.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from tif.config.schema import Loss
from tif.scoring.token_scores import PerToken, TokenScores


@dataclasses.dataclass
class Scored:
    """What the models say of one batch.

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
    """The scores of a batch: its forget samples and, where the terms read them, retain samples and alternates."""

    forget: Scored
    retain: Scored | None = None
    alternate: Scored | None = None


@dataclasses.dataclass
class Inputs:
    """What a term sees.

    Attributes:
        policy, reference, token_values: as in `Scored`.
        mask: (B, T-1) bool, True where the token to predict counts.
        alternate: the same of each prompt with an alternate (a refusal, or another answer), all of whose tokens count;
            where the term asks for it.
        samples: of the whole batch, of which these may be a part; None = these.
        tokens: () long, the counting tokens of the whole batch; None = these.
    """

    policy: TokenScores
    mask: torch.Tensor
    reference: TokenScores | None = None
    token_values: torch.Tensor | None = None
    alternate: "Inputs | None" = None
    samples: int | None = None
    tokens: torch.Tensor | None = None

    def token_mean(self, values: torch.Tensor | None) -> torch.Tensor:
        """Mean of (B, T-1) values over the batch's masked tokens; 0 where there are none."""
        assert values is not None  # the term says that it needs them
        tokens = self.mask.sum() if self.tokens is None else self.tokens
        return (values * self.mask).sum() / tokens.clamp(min=1)

    def sample_mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of (B,) values over the batch's samples; one without a masked token adds 0."""
        return torch.where(self.mask.any(1), values, 0).sum() / (self.samples or len(values))


@dataclasses.dataclass(frozen=True)
class Term:
    """A forget or retain term and what it needs.

    Attributes:
        value: (inputs, section `loss`) -> scalar to minimise, the share of these samples in the batch's; finite, and 0
            without gradient, for an empty mask.
        reference: reads the original model's token scores.
        alternate: reads the scores of alternates.
        per_token: makes of section `loss` what is computed at each answer token, `Inputs.token_values`.
        needs_whole_batch: section `loss` -> whether samples of a batch enter each other's value in other ways than a
            mean, so that the batch cannot be scored in parts.
    """

    value: Callable[[Inputs, Loss], torch.Tensor]
    reference: bool = False
    alternate: bool = False
    per_token: Callable[[Loss], PerToken] | None = None
    needs_whole_batch: Callable[[Loss], bool] = lambda cfg: False

    def __call__(self, inputs: Inputs, cfg: Loss) -> torch.Tensor:
        """The term's value."""
        return self.value(inputs, cfg)


def term(**needs: Any) -> Callable[[Callable[[Inputs, Loss], torch.Tensor]], Term]:
    """Decorator that makes a function of (inputs, cfg) a `Term`; `needs` are the Term's other fields."""
    return lambda value: Term(value, **needs)


def nll(scores: TokenScores | None, mask: torch.Tensor) -> torch.Tensor:
    """(B,) negative log-likelihood of each sample's masked tokens (nats); 0 where it has none."""
    assert scores is not None  # the term says that it needs them
    return -(scores.logprob * mask).sum(1)
