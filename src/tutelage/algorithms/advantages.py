"""How much better each token was than the critic expected.

    rewards ──┐
    values  ──┼─> gae ──> advantages (policy)  and  returns (critic)
    mask    ──┘

Separate lambdas for policy and critic are two calls: keep the advantages of one and the
returns of the other.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tutelage.algorithms.masked import require_same_shape, zero_outside

__all__ = ["gae"]


def gae(
    rewards: Float[Tensor, "batch time"],
    values: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    *,
    gamma: float,
    lam: float,
    bootstrap: Float[Tensor, " batch"] | None = None,
) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
    """Generalised advantage estimation over the tokens that the policy wrote.

        δ_t = r_t + γ V_{t+1} - V_t,   A_t = δ_t + γλ A_{t+1},   R_t = A_t + V_t

    Source: Schulman et al. 2016 (arXiv:1506.02438), eq. 16. Departure: `t + 1` is the next
    *masked-in* token of the row, so that prompts, padding and observations between two turns
    take no time and no discount. For language models γ = 1: a smaller γ also discounts
    the KL penalty and moves the optimum.

    Args:
        rewards: per token, as `shape_rewards` makes them.
        values: V of the state in which the token was chosen.
        gamma: discount per token.
        lam: 0 trusts the critic, 1 the observed return.
        bootstrap: V of the state after the row's last token, 0 in rows that ended; when
            absent, every row has ended.

    Returns:
        Advantages and returns, without gradient, 0 at masked positions. Returns come from these
        advantages as they are; whiten afterwards.

    Raises:
        ValueError: shapes differ, or a reward lies on a masked token between two written ones,
            where it would be lost: move it to the token that earned it.
    """
    require_same_shape(rewards=rewards, values=values, mask=mask)
    if bootstrap is not None:
        require_same_shape(bootstrap=bootstrap, rows=mask[..., 0])
    with torch.no_grad():
        mask = mask.bool()
        _refuse_lost_rewards(rewards, mask)
        rewards, values = zero_outside(rewards, mask), zero_outside(values, mask)
        next_value = torch.zeros_like(values[..., 0]) if bootstrap is None else bootstrap
        next_advantage = torch.zeros_like(values[..., 0])
        columns = []
        for t in reversed(range(mask.shape[-1])):
            written = mask[..., t]
            delta = rewards[..., t] + gamma * next_value - values[..., t]
            advantage = delta + gamma * lam * next_advantage
            next_advantage = torch.where(written, advantage, next_advantage)
            next_value = torch.where(written, values[..., t], next_value)
            columns.append(advantage)
        advantages = zero_outside(torch.stack(columns[::-1], -1), mask)
        return advantages, zero_outside(advantages + values, mask)


def _refuse_lost_rewards(rewards: Tensor, mask: Tensor) -> None:
    """Padding may hold anything; a token between two written ones may not hold a reward."""
    written_before = mask.cumsum(-1) > 0
    written_after = mask.flip(-1).cumsum(-1).flip(-1) > 0
    between = written_before & written_after & ~mask
    lost = between & (rewards != 0) & ~rewards.isnan()
    if lost.any():
        where = lost.nonzero()[0].tolist()
        raise ValueError(
            f"reward {float(rewards[lost][0]):g} at {where} lies on a masked token between two "
            "written ones and would be lost: add it to the last written token before"
        )
