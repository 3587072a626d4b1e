"""Guess: the original model's distribution with the true token no likelier than a guess."""

import dataclasses

import torch

from tif.config.keys import key
from tif.losses.terms import per_token_term
from tif.scoring.token_scores import Outputs


@dataclasses.dataclass
class GuessKeys:
    """Keys of guess."""

    guess: float = key(0.02, "guess: the true token's probability where it is forgotten", above=0,
        at_most=1)
    guess_pull: float = key(0.0, "guess: weight of the hinge on log-probabilities above that, "
        "whose gradient does not fade near it", at_least=0)


def make_guess(logits: torch.Tensor, targets: torch.Tensor, guess: float) -> torch.Tensor:
    """Return (K, V) log-probabilities: the true token's at most `guess`, the rest in proportion.

    A distribution that gives the true token less already stays as it is.

    Args:
        logits: (K, V) of the original model, float32.
        targets: (K,) true tokens.
        guess: the largest probability that they keep.
    """
    position = targets[:, None]
    true = logits.log_softmax(1).gather(1, position).exp().clamp(max=guess)
    others = logits.scatter(1, position, -torch.inf).log_softmax(1)
    return (others + torch.log1p(-true)).scatter(1, position, true.log())


@per_token_term("guess", reference=True, keys=GuessKeys)
def guess(policy: Outputs, reference: Outputs, keys: GuessKeys) -> torch.Tensor:
    """Learn the original model's distribution in which the true token is a guess.

    KL(q || p) + guess_pull * max(0, log p_y - log q_y), nats per token; q is `make_guess`'s. 0
    where the policy has reached it; its limit is a guess, not zero.

    Source: our own. It is UNDIAL (arXiv 2402.10052) with the beta that brings each true token to
    one probability; Unilogit (arXiv 2505.06027) brings it to that of the uniform distribution.
    """
    log_q = make_guess(reference.logits, policy.targets, keys.guess)
    log_p, position = policy.logits.log_softmax(1), policy.targets[:, None]
    above = (log_p - log_q).gather(1, position)[:, 0].relu()
    return (log_q.exp() * (log_q - log_p)).sum(1) + keys.guess_pull * above
