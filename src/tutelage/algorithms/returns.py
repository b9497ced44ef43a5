"""Credit for a token without a critic and without a group: what came after it, minus a baseline.

rewards ──reward_to_go──> returns ──minus MovingBaseline, or the round's mean──> REINFORCE
                                  └─────normalised over the round─────────────> REINFORCE++
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tutelage.algorithms.advantages import gae
from tutelage.algorithms.masked import AllSum, identity, masked_whiten, zero_outside

__all__ = ["MovingBaseline", "normalised_returns", "reward_to_go", "subtract_baseline"]


def reward_to_go(
    rewards: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], *, gamma: float = 1.0
) -> Float[Tensor, "batch time"]:
    """What the policy received from each of its tokens on.

        G_t = Σ_{k≥0} γᵏ r_{t+k}

    Source: Williams 1992; the return of Sutton & Barto 2018, eq. 3.8. It is `gae` with λ = 1 and a
    critic that always says 0, and keeps its rules about masks.

    Args:
        rewards: per token, as `shape_rewards` makes them.
        gamma: discount per written token.

    Returns:
        Returns without gradient, 0 at masked positions.
    """
    returns, _ = gae(rewards, torch.zeros_like(rewards), mask, gamma=gamma, lam=1.0)
    return returns


def subtract_baseline(
    returns: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    baseline: float | Float[Tensor, ""],
) -> Float[Tensor, "batch time"]:
    """Advantages of REINFORCE.

        A_t = G_t - b

    Source: Williams 1992, where b is the reinforcement baseline. Any b that does not depend on
    the sample leaves the expected gradient as it is and changes its variance alone. The mean of
    the round itself contains the sample and makes the gradient smaller by a share of one in the
    number of completions.
    """
    return zero_outside(returns - baseline, mask)


def normalised_returns(
    rewards: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    *,
    gamma: float = 1.0,
    all_sum: AllSum = identity,
) -> Float[Tensor, "batch time"]:
    """Returns with mean 0 and variance 1 over all tokens of the round.

        A_t = (G_t - mean G) / std G

    Source: REINFORCE++, Hu 2025 (arXiv:2501.03262), section 3. The moments are those of the whole
    round, not of a prompt's group: every sample is divided by the same number.

    Args:
        rewards: per token, the KL penalty included.
        all_sum: adds over ranks.
    """
    return masked_whiten(reward_to_go(rewards, mask, gamma=gamma), mask, all_sum=all_sum)


class MovingBaseline:
    """The mean return of earlier rounds, the recent ones weighing most.

        b' = b + (1 - d) / (1 - dⁿ) (mean of round n - b)

    Source: Williams 1992, section 2, reinforcement comparison; the weights are those of an
    exponential average without the pull of its start (Kingma & Ba 2015, arXiv:1412.6980,
    section 3). It is taken before the round is added, so that it does not depend on its samples.
    State: it belongs in every checkpoint.
    """

    def __init__(self, decay: float = 0.9) -> None:
        """Begins at 0.

        Raises:
            ValueError: `decay` is not in [0, 1).
        """
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of a baseline must lie in [0, 1), found {decay!r}")
        self.decay = decay
        self.value = 0.0
        self.rounds = 0

    def update(
        self, returns: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]
    ) -> None:
        """Adds a round; one without any token changes nothing."""
        kept = returns[mask.bool()].double()
        if not len(kept):
            return
        self.rounds += 1
        weight = (1 - self.decay) / (1 - self.decay**self.rounds)
        self.value += weight * (float(kept.mean()) - self.value)

    def state_dict(self) -> dict[str, float]:
        """The average and the number of rounds in it."""
        return {"value": self.value, "rounds": self.rounds}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Inverse of `state_dict`."""
        self.value, self.rounds = state["value"], int(state["rounds"])
