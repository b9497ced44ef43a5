"""Attention on a CPU where plain operations are faster than torch's fused kernel.

That kernel is written for long rows of many queries. Plain operations with a float32 softmax are
faster for rows of up to 128 tokens under autocast, for prompts of up to 64 in bfloat16, and for the
one new token of many rows in decoding (`python -m benchmarks.attention`).
"""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = [
    "LONGEST",
    "LONGEST_PROMPT",
    "MANY",
    "attend_short_rows",
    "new_token_attention",
    "new_token_mask",
    "prompt_attention",
    "short_row_attention",
]

LONGEST = 128
"""Longest row for which plain operations are the faster way."""
LONGEST_PROMPT = 64
"""Longest prompt for which they are in bfloat16, without a backward pass."""
MANY = 64
"""Key heads of all rows from which plain operations decode faster."""
_NAME = "tutelage_short_rows"


def attend_short_rows(model: PreTrainedModel) -> None:
    """Has a model compute attention of short rows in plain operations where these are faster.

    That is: on a CPU, under autocast, for rows without a mask of their own. Everything else goes to
    torch's `scaled_dot_product_attention` as before. A model that was loaded with another attention
    than that one, or that has one of its own, stays as it is.
    """
    if model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
        model.set_attn_implementation(_NAME)


def prompt_attention(
    query: Float[Tensor, "rows heads time size"],
    key: Float[Tensor, "rows key_heads time size"],
    value: Float[Tensor, "rows key_heads time size"],
    mask: Float[Tensor, "rows 1 time time"] | None,
    scale: float,
) -> Float[Tensor, "rows heads time size"]:
    """softmax(scale q k^T + mask) v of prompts side by side.

    Args:
        query: of all tokens.
        key, value: of the same tokens; each key head serves as many consecutive heads.
        mask: added to the scores; None where a token sees itself and all before it.
        scale: of the scores before the softmax.
    """
    rows, heads, time, size = query.shape
    short = query.device.type == "cpu" and time <= LONGEST_PROMPT
    if not short or query.dtype is not torch.bfloat16:
        return functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=heads != key.shape[1],
        )
    unseen = torch.full((time, time), -torch.inf).triu_(1) if mask is None else mask
    # Heads that share keys lie below one another in one product.
    queries, keys = (x.float().reshape(rows * key.shape[1], -1, size) for x in (query, key))
    scores = torch.bmm(queries, keys.transpose(1, 2)).view(rows, heads, time, time)
    weights = torch.softmax(scores.mul_(scale).add_(unseen), -1).to(value.dtype)
    weights = weights.view(len(keys), -1, time)
    return torch.bmm(weights, value.reshape(keys.shape)).view(query.shape)


def new_token_mask(
    mask: Float[Tensor, "rows 1 1 columns"], heads: int, queries: int
) -> Float[Tensor, "rows _ _ columns"]:
    """A mask for `new_token_attention`, laid out as it is read, once for all layers.

    Args:
        mask: added to the scores.
        heads: key heads.
        queries: heads that share each of them.
    """
    if not _plain_for_new_tokens(mask, heads):
        return mask
    return mask.expand(-1, heads, queries, -1).transpose(2, 3).contiguous().transpose(2, 3)


def new_token_attention(
    query: Float[Tensor, "rows heads queries size"],
    key: Float[Tensor, "rows heads columns size"],
    value: Float[Tensor, "rows heads columns size"],
    mask: Float[Tensor, "rows _ _ columns"] | None,
    scale: float,
) -> Float[Tensor, "rows heads queries size"]:
    """softmax(scale q k^T + mask) v of a few queries, all of which see all columns.

    Args:
        query: those of the heads that share a key head.
        key, value: of all columns so far, where nothing needs to be copied to read them as they
            were stored.
        mask: added to the scores; None for 0. Fastest as `new_token_mask` gives it.
        scale: of the scores before the softmax, which is float32.
    """
    if not _plain_for_new_tokens(query, query.shape[1]):
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scale
        )
    # `matmul` of four dimensions would copy what is a part of a larger store; and keys stand on the
    # left, as on the right they would be copied into another order.
    queries, keys, values = (query * scale).flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
    scores = torch.bmm(keys, queries.transpose(1, 2)).transpose(1, 2)
    if mask is not None:
        scores = scores.add_(mask.expand(*query.shape[:3], -1).flatten(0, 1))
    weights = torch.softmax(scores.contiguous(), -1, dtype=torch.float32).to(value.dtype)
    return torch.bmm(weights, values).view(query.shape)


def _plain_for_new_tokens(rows: Tensor, heads: int) -> bool:
    return rows.device.type == "cpu" and len(rows) * heads >= MANY


def short_row_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, *, causal: bool
) -> Tensor:
    """softmax(scale q k^T) v, with scores and softmax in float32 (Vaswani et al. 2017, eq. 1).

    The scores are computed again in the backward pass: nothing of the square of the row's length
    is kept.

    Args:
        query: of shape [batch, heads, time, size].
        key, value: of shape [batch, key heads, time, size]; each key head serves as many
            consecutive heads.
        scale: of the scores before the softmax.
        causal: whether a token sees none behind it.

    Returns:
        Of the query's shape, in the format of `value`.
    """
    return cast(Tensor, _ScoredAgain.apply(query, key, value, scale, causal))


class _ScoredAgain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.options = scale, causal
        return _attend(query, key, value, scale, causal)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            inputs = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
            out = _attend(*inputs, *ctx.options)
        return *torch.autograd.grad(out, inputs, upstream), None, None


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool) -> Tensor:
    """The queries of all heads that share a key head lie below one another in one product."""
    time, size = query.shape[2:]
    key_rows = (-1, time, size)
    unseen = torch.zeros(time, time)
    if causal:
        unseen = unseen.fill_(-torch.inf).triu_(1)
    sharing = query.shape[1] // key.shape[1]
    queries = query.float().reshape(-1, sharing * time, size)
    keys = key.float().reshape(key_rows).transpose(1, 2)
    with torch.autocast("cpu", enabled=False):
        scores = torch.baddbmm(unseen.repeat(sharing, 1), queries, keys, alpha=scale)
        weights = torch.softmax(scores, -1).to(value.dtype)
        return torch.bmm(weights, value.reshape(key_rows)).view(query.shape)


def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """As transformers calls an attention; query of [batch, heads, time, size]."""
    plain = (
        query.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and 1 < query.shape[2] == key.shape[2] <= LONGEST
        and attention_mask is None
        and not dropout
        and not any(others.get(name) is not None for name in ("position_bias", "softcap", "cache"))
    )
    if not plain:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **others
        )
    dtype = torch.get_autocast_dtype("cpu")
    out = short_row_attention(
        query.to(dtype),
        key.to(dtype),
        value.to(dtype),
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        causal=getattr(module, "is_causal", True) if is_causal is None else is_causal,
    )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _forward)
AttentionMaskInterface.register(_NAME, sdpa_mask)
