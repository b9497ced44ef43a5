"""Estimates of the KL divergence from sampled tokens alone (Schulman 2020).

    d = log p(x) - log q(x),  x ~ p

    kind  value          E = KL(p ‖ q)?   its gradient, as a loss    in the reward
    k1    d              yes              zero in expectation: no    right: use it
    k2    d²/2           biased           that of KL(p ‖ q): use it  wrong
    k3    e⁻ᵈ - 1 + d    yes              that of KL(q ‖ p)          wrong by 10x

"Stable" or "unbiased" as a number does not make an estimator right as a reward or as a loss:
what is optimised is the gradient, and only two cells of the table have the right one.
"""

from typing import Literal, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["KLKind", "kl_estimate"]

KLKind = Literal["k1", "k2", "k3"]


def kl_estimate(
    logprobs: Float[Tensor, "*shape"], ref_logprobs: Float[Tensor, "*shape"], kind: KLKind = "k1"
) -> Float[Tensor, "*shape"]:
    """Estimates KL(policy ‖ reference) from the log-probabilities of tokens the policy drew.

        d = log π(x) - log π_ref(x);   k1 = d,   k2 = d²/2,   k3 = e⁻ᵈ - 1 + d

    Source: Schulman 2020, "Approximating KL divergence" (joschu.net/blog/kl-approx.html). The post
    writes r = q/p with x ~ q; here the tokens come from the first argument.

    Returns:
        One estimate per token, positive in expectation; k1 is negative for many tokens.
    """
    difference = logprobs - ref_logprobs
    match kind:
        case "k1":
            return difference
        case "k2":
            return difference.square() / 2
        case "k3":
            return torch.expm1(-difference) + difference
        case _:
            assert_never(kind)
