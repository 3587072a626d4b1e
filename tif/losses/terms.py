"""What a term of a loss is made from: `Term`, what it sees, and the means that terms share.

Shapes: B samples, T tokens, K answer tokens, V vocabulary.
"""

import dataclasses
from collections.abc import Callable

import torch

from tif.schema import Loss
from tif.scoring import PerToken, TokenScores


@dataclasses.dataclass
class Scored:
    """What the models say of one batch.

    Attributes:
        policy: scores, (B, T-1) each.
        reference: the original model's, where the term compares with them.
        own: (B, T-1) float32, values of the term's `per_token`, where it has one.
    """

    policy: TokenScores
    reference: TokenScores | None = None
    own: torch.Tensor | None = None


@dataclasses.dataclass
class Inputs:
    """What a term sees.

    Attributes:
        policy, reference, own: as in `Scored`.
        mask: (B, T-1) bool, True where the token to predict counts.
        alternate: the same of each prompt with a refusal for an answer, all of whose tokens count; where the term asks
            for it.
    """

    policy: TokenScores
    mask: torch.Tensor
    reference: TokenScores | None = None
    own: torch.Tensor | None = None
    alternate: "Inputs | None" = None


@dataclasses.dataclass(frozen=True)
class Term:
    """A forget or retain term and what it needs.

    Attributes:
        value: (inputs, section `loss`) -> scalar to minimise; finite, and 0 without gradient, for an empty mask.
        reference: reads the original model's token scores.
        alternate: reads the scores of refusals.
        per_token: makes of section `loss` what is computed at each answer token, `Inputs.own`.
    """

    value: Callable[[Inputs, Loss], torch.Tensor]
    reference: bool = False
    alternate: bool = False
    per_token: Callable[[Loss], PerToken] | None = None

    def __call__(self, inputs: Inputs, cfg: Loss) -> torch.Tensor:
        """The term's value."""
        return self.value(inputs, cfg)


def term(
    reference: bool = False, alternate: bool = False, per_token: Callable[[Loss], PerToken] | None = None
) -> Callable[[Callable[[Inputs, Loss], torch.Tensor]], Term]:
    """Decorator that makes a function of (inputs, cfg) a `Term`; the arguments say what it needs."""
    return lambda value: Term(value, reference, alternate, per_token)


def nll(scores: TokenScores | None, mask: torch.Tensor) -> torch.Tensor:
    """(B,) negative log-likelihood of each sample's masked tokens (nats); 0 where it has none."""
    assert scores is not None  # the term says that it needs them
    return -(scores.logprob * mask).sum(1)


def token_mean(values: torch.Tensor | None, mask: torch.Tensor) -> torch.Tensor:
    """Mean of (B, T-1) values over all masked tokens of the batch; 0 where there are none."""
    assert values is not None  # the term says that it needs them
    return (values * mask).sum() / mask.sum().clamp(min=1)


def sample_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of (B,) values over the batch, in which a sample without a masked token adds 0."""
    return torch.where(mask.any(1), values, 0).mean()
