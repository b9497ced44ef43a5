"""From one score per completion to one reward per token.

score ──truncation_score──length_penalty──> score' ─┐
                                                    ├─ shape_rewards ──> rewards ──> gae
log π - log π_ref ──kl_estimate("k1")──> kl ────────┘

token     p  p  r      r      E           p: prompt, r: response, E: its last token
reward    0  0  -β kl  -β kl  -β kl + score'
"""

from typing import Literal, assert_never

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tutelage.algorithms.masked import last_token, require_same_shape, zero_outside

__all__ = [
    "TruncationKind",
    "length_penalty",
    "overlong_penalty",
    "shape_rewards",
    "truncation_score",
]

TruncationKind = Literal["subtract", "replace"]


def shape_rewards(
    scores: Float[Tensor, " batch"],
    kl: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    beta: float,
    *,
    earned: Float[Tensor, "batch time"] | None = None,
) -> Float[Tensor, "batch time"]:
    """Per-token rewards: the KL penalty everywhere, the score on the last written token.

        r_t = -β kl_t + [t = T] score
        r_t = -β kl_t + e_t + [t = T] (score - Σ e)     where e_t was earned on the way

    Source: Ziegler et al. 2019 (arXiv:1909.08593), eq. 2. With k1 the sum over a row is
    score - β log(π / π_ref) of the whole completion, and the optimum is
    π* ∝ π_ref exp(score / β); with k2 or k3 it is another policy.

    Args:
        kl: k1 per token, as `kl_estimate(old_logprobs, ref_logprobs)` gives it.
        beta: weight of the penalty, in score per nat.
        earned: e, the part of the score that turns before the last one of a conversation earned,
            on written tokens; all of it is earned at T when absent.

    Returns:
        Rewards without gradient, 0 at masked positions. A row without a response has none,
        whatever its score.

    Raises:
        ValueError: shapes differ, something was earned on a masked token of a row with a response,
            where it would be lost, or the score of a row with a response is not finite: a
            completion that could not be scored has to be masked out, not learned from.
    """
    require_same_shape(kl=kl, mask=mask)
    require_same_shape(scores=scores, rows=mask[..., 0])
    with torch.no_grad():
        final = last_token(mask)
        unusable = final.any(-1) & ~scores.isfinite()
        if unusable.any():
            rows = unusable.nonzero().flatten().tolist()
            raise ValueError(
                f"scores of rows {rows} are not finite: mask those rows out (an all-false "
                "response mask), or repair the reward"
            )
        if earned is not None:
            _refuse_lost(earned, mask)
            earned = zero_outside(earned, mask)
            scores = scores - earned.sum(-1)
        placed = torch.where(final, scores.unsqueeze(-1), 0)
        if earned is not None:
            placed = placed + earned
        return placed - beta * zero_outside(kl, mask)


def _refuse_lost(earned: Tensor, mask: Tensor) -> None:
    require_same_shape(earned=earned, mask=mask)
    lost = mask.any(-1, keepdim=True) & ~mask & (earned != 0) & ~earned.isnan()
    if lost.any():
        where = lost.nonzero()[0].tolist()
        raise ValueError(
            f"{float(earned[lost][0]):g} was earned at {where}, which the policy did not write: "
            "put it on the last written token before"
        )


def truncation_score(
    scores: Float[Tensor, " batch"],
    truncated: Bool[Tensor, " batch"],
    *,
    kind: TruncationKind = "subtract",
    value: float = 1.0,
) -> Float[Tensor, " batch"]:
    """What a completion that ran into the token limit is worth.

        subtract: s' = s - value;   replace: s' = value      (in truncated rows)

    Source: `replace` with -1 is Ziegler et al. 2019 (arXiv:1909.08593, code) and Huang et al. 2024
    (arXiv:2403.17031); `subtract` is TRL's missing-EOS penalty. Apply it after
    the score has been normalised, so that `value` keeps its meaning.
    """
    match kind:
        case "subtract":
            return torch.where(truncated, scores - value, scores)
        case "replace":
            return torch.where(truncated, value, scores)
        case _:
            assert_never(kind)


def length_penalty(
    lengths: Int[Tensor, "*shape"], *, coefficient: float, threshold: int
) -> Float[Tensor, "*shape"]:
    """A reward that falls with every token above a threshold.

        y = -c · max(0, T - T₀)

    Source: by definition; Singhal et al. 2023 (arXiv:2310.03716) measure how much of a learned
    reward is length. The hinge holds only if c exceeds what the reward model pays per token.

    Args:
        lengths: T, in tokens.
        coefficient: c, in score per token, at least 0.
        threshold: T₀, in tokens.
    """
    if coefficient < 0:
        raise ValueError(f"a negative coefficient would reward length, found {coefficient!r}")
    return -coefficient * (lengths - threshold).clamp(min=0)


def overlong_penalty(
    lengths: Int[Tensor, "*shape"], *, longest: int, buffer: int, penalty: float = 1.0
) -> Float[Tensor, "*shape"]:
    """A punishment that rises over the last tokens before the limit.

        y = -p · clip((T - (L_max - L_buffer)) / L_buffer, 0, 1)

    Source: DAPO, Yu et al. 2025 (arXiv:2503.14476), eq. 13, where p = 1. A completion is told that
    it is getting long before it is cut off, where `truncation_score` only says so afterwards.

    Args:
        lengths: T, in tokens.
        longest: L_max, in tokens.
        buffer: L_buffer, in tokens, at most L_max.
        penalty: p, in score.

    Raises:
        ValueError: the buffer is empty or longer than the limit, or the penalty is negative.
    """
    if not 0 < buffer <= longest:
        raise ValueError(f"the buffer must lie in [1, {longest}] tokens, found {buffer!r}")
    if penalty < 0:
        raise ValueError(f"a negative penalty would reward length, found {penalty!r}")
    return -penalty * ((lengths - (longest - buffer)) / buffer).clamp(0, 1)
