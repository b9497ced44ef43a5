"""What lies between the matrix products of `tutelage.models.decoder`, in two ways.

`PlainOperations` are torch's, on any device. `NativeOperations` are compiled for the processor, in
one pass over memory each; they know the parts of Llama, Qwen and Mistral, and ask the parts
themselves, not their names: what computes anything else is left to torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from tutelage.models.attention import new_token_attention, new_token_mask, prompt_attention
from tutelage.models.column_cache import ColumnCache
from tutelage.native import decoding
from tutelage.native.calls import available

__all__ = ["Attend", "BlockShape", "NativeOperations", "Operations", "PlainOperations"]


@dataclass(frozen=True)
class BlockShape:
    """What the attention of every block looks like, and the format it is computed in."""

    heads: int
    key_heads: int
    """Each serves as many consecutive heads."""
    size: int
    """Of a head."""
    scale: float
    """Of the scores before the softmax."""
    compute: torch.dtype


class Attend(Protocol):
    """The attention of one pass through the model."""

    def __call__(
        self, number: int, attention: Any, joined: Float[Tensor, "rows time width"]
    ) -> Float[Tensor, "rows time asked"]:
        """Stores keys and values of block `number`, and gives what its queries hear.

        Args:
            number: of the block.
            attention: the block's own module.
            joined: queries, keys and values of new tokens side by side; may be overwritten.
        """
        ...


class Operations(Protocol):
    """The steps of a block that are no products."""

    finds_rows: bool
    """Whether attention reads rows of a cache wherever they lie; else they must be closed up."""

    def refresh(self) -> None:
        """Reads weights again."""
        ...

    def add_and_normalise(
        self,
        x: Float[Tensor, "rows time width"],
        added: Float[Tensor, "rows time width"] | None,
        norm: nn.Module,
    ) -> tuple[Float[Tensor, "rows time width"], Float[Tensor, "rows time width"]]:
        """x + added, which may be written over x, and the norm of that."""
        ...

    def gate(
        self, feed_forward: Any, gate_up: Float[Tensor, "rows time both"]
    ) -> Float[Tensor, "rows time half"]:
        """act(gate) * up, which lie side by side."""
        ...

    def reading(
        self,
        rotation: tuple[Float[Tensor, "rows time size"], Float[Tensor, "rows time size"]],
        cache: ColumnCache,
        place: slice,
        column: int,
        starts: tuple[int, int],
    ) -> Attend:
        """Attention of tokens that are read from `column` on, into the rows at `place`.

        Several tokens at a time are the first of their rows.

        Args:
            rotation: cosine, and sine with the sign that the other half of a head has beside it.
            cache: with room for them.
            place: rows of the cache.
            column: that of the first of these tokens.
            starts: the smallest and the largest first column of these rows.
        """
        ...


class PlainOperations:
    """torch's own."""

    finds_rows = False

    def __init__(self, shape: BlockShape) -> None:
        self._shape = shape

    def refresh(self) -> None:
        """Nothing to do: no weight is copied."""

    def add_and_normalise(
        self, x: Tensor, added: Tensor | None, norm: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """See `Operations`."""
        x = x if added is None else x + added
        return x, norm(x)

    def gate(self, feed_forward: Any, gate_up: Tensor) -> Tensor:
        """See `Operations`."""
        gate, up = gate_up.chunk(2, -1)
        gated: Tensor = feed_forward.act_fn(gate).mul_(up)
        return gated

    def reading(
        self,
        rotation: tuple[Tensor, Tensor],
        cache: ColumnCache,
        place: slice,
        column: int,
        starts: tuple[int, int],
    ) -> Attend:
        """See `Operations`."""
        shape, start, time = self._shape, cache.start[place], rotation[0].shape[1]
        if time > 1:
            padded = starts[1] > column
            mask = _prompt_mask(start - column, time, shape.compute) if padded else None
        else:
            mask = _token_mask(start, starts, column + 1, shape)
        cosine, sine = (part[:, None] for part in rotation)
        return _PlainAttend(shape, (cosine, sine), cache, place, column, starts[0], mask)


@dataclass
class _PlainAttend:
    shape: BlockShape
    rotation: tuple[Tensor, Tensor]
    """Of all heads alike: [rows, 1, time, size]."""
    cache: ColumnCache
    place: slice
    column: int
    first: int
    """First column that any row uses."""
    mask: Tensor | None

    def __call__(self, number: int, attention: Any, joined: Tensor) -> Tensor:
        rows, time = joined.shape[:2]
        query, key, value = self._turned(attention, joined)
        keys, values = self.cache.keys[number][self.place], self.cache.values[number][self.place]
        keys[:, :, self.column : self.column + time] = key
        values[:, :, self.column : self.column + time] = value
        if time > 1:
            heard = prompt_attention(query, key, value, self.mask, self.shape.scale)
            return heard.transpose(1, 2).reshape(rows, time, -1)
        seen = slice(self.first, self.column + 1)
        # Heads that share keys ask together, as if they were tokens.
        asked = query.reshape(rows, self.shape.key_heads, -1, self.shape.size)
        heard = new_token_attention(
            asked, keys[:, :, seen], values[:, :, seen], self.mask, self.shape.scale
        )
        return heard.reshape(rows, 1, -1)

    def _turned(self, attention: Any, joined: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values `[rows, heads, time, size]`, rotated."""
        shape = self.shape
        joined = joined.view(*joined.shape[:2], -1, shape.size).transpose(1, 2)
        both, value = joined.split((shape.heads + shape.key_heads, shape.key_heads), dim=1)
        if hasattr(attention, "q_norm"):
            query, key = both.split((shape.heads, shape.key_heads), dim=1)
            both = torch.cat((attention.q_norm(query), attention.k_norm(key)), dim=1)
        cosine, sine = self.rotation
        rotated = both * cosine + both.roll(shape.size // 2, -1) * sine
        query, key = rotated.to(value.dtype).split((shape.heads, shape.key_heads), dim=1)
        return query, key, value


class NativeOperations:
    """Compiled ones."""

    finds_rows = True

    def __init__(self, shape: BlockShape, blocks: Sequence[Any], last_norm: nn.Module) -> None:
        """Reads the norms; see `of`.

        Raises:
            ValueError: a part is not one that they know.
            AttributeError: a part is missing.
        """
        if shape.size not in decoding.SIZES or shape.heads % shape.key_heads:
            raise ValueError(f"found heads of size {shape.size}, {shape.heads} of them")
        if not all(_is_silu(block.mlp.act_fn) for block in blocks):
            raise ValueError("found another activation than silu")
        self._shape = shape
        self._modules = [last_norm]
        for block in blocks:
            self._modules += (block.input_layernorm, block.post_attention_layernorm)
            if hasattr(block.self_attn, "q_norm"):
                self._modules += (block.self_attn.q_norm, block.self_attn.k_norm)
        self._offsets = [_offset(norm) for norm in self._modules]
        self.refresh()

    @classmethod
    def of(cls, shape: BlockShape, blocks: Sequence[Any], last_norm: nn.Module) -> Self | None:
        """Operations for these blocks; None where they are made of other parts, or elsewhere."""
        weight = next(last_norm.parameters(), None)
        if weight is None or not available(weight.device, shape.compute):
            return None
        try:
            return cls(shape, blocks, last_norm)
        except (AttributeError, ValueError):
            return None

    def refresh(self) -> None:
        """Reads the weights of norms again."""
        self._norms = {
            norm: _norm(norm, offset)
            for norm, offset in zip(self._modules, self._offsets, strict=True)
        }

    def add_and_normalise(
        self, x: Tensor, added: Tensor | None, norm: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """See `Operations`; the sum is written over x."""
        width = x.shape[-1]
        more = None if added is None else added.reshape(-1, width)
        normed = decoding.add_and_normalise(
            x.view(-1, width), more, self._norms[norm], self._shape.compute
        )
        return x, normed.view(x.shape)

    def gate(self, feed_forward: Any, gate_up: Tensor) -> Tensor:
        """See `Operations`."""
        return decoding.gate(gate_up.flatten(0, 1)).view(*gate_up.shape[:2], -1)

    def reading(
        self,
        rotation: tuple[Tensor, Tensor],
        cache: ColumnCache,
        place: slice,
        column: int,
        starts: tuple[int, int],
    ) -> Attend:
        """See `Operations`."""
        start, lies = cache.start[place], cache.place[place]
        shape, time = self._shape, rotation[0].shape[1]
        # One row's rotation may stand for those of all.
        cosine, sine = (part.expand(len(start), time, -1).contiguous() for part in rotation)
        heads = decoding.Heads(shape.heads, shape.key_heads, shape.size)

        def attend(number: int, attention: Any, joined: Tensor) -> Tensor:
            return decoding.read(
                joined,
                (cosine, sine),
                self._normed(heads, attention),
                cache.keys[number],
                cache.values[number],
                lies,
                start,
                column,
                shape.scale,
            )

        return attend

    def _normed(self, heads: decoding.Heads, attention: Any) -> decoding.Heads:
        if not hasattr(attention, "q_norm"):
            return heads
        norms = self._norms[attention.q_norm], self._norms[attention.k_norm]
        return replace(heads, query_norm=norms[0], key_norm=norms[1])


def _prompt_mask(start: Tensor, time: int, compute: torch.dtype) -> Tensor:
    """What is added to scores of prompts side by side."""
    columns = torch.arange(time, device=start.device)
    own = columns[None, None, :] >= start[:, None, None]
    sees = (columns[None, None, :] <= columns[None, :, None]) & own
    # Padding sees itself: a row of nothing but -inf would turn into NaN and spread.
    sees = sees | torch.eye(time, dtype=torch.bool, device=start.device)
    return _additive(sees[:, None], compute)


def _token_mask(
    start: Tensor, starts: tuple[int, int], end: int, shape: BlockShape
) -> Tensor | None:
    """What is added to the scores of one new token of each row; None where all see all columns."""
    if starts[0] == starts[1]:
        return None
    columns = torch.arange(starts[0], end, device=start.device)
    mask = _additive((columns[None] >= start[:, None])[:, None, None], shape.compute)
    return new_token_mask(mask, shape.key_heads, shape.heads // shape.key_heads)


def _additive(allowed: Tensor, compute: torch.dtype) -> Tensor:
    """The mask as attention adds it; made once, where a boolean one is converted per layer."""
    zero = torch.zeros((), dtype=compute, device=allowed.device)
    return torch.where(allowed, zero, torch.finfo(compute).min)


def _is_silu(activation: Any) -> bool:
    x = torch.linspace(-6.0, 6.0, 25, device="cpu")
    return torch.allclose(activation(x.clone()), functional.silu(x), rtol=1e-6, atol=1e-6)


def _offset(norm: Any) -> float:
    """What is added to the weight of a root mean square norm, Gemma's 1 for instance.

    Raises:
        ValueError: it computes something else.
    """
    weight = norm.weight
    if isinstance(weight, Tensor) and weight.dtype is torch.float32 and not list(norm.children()):
        x = torch.linspace(-2.0, 3.0, weight.numel(), device=weight.device)[None]
        for offset in (0.0, 1.0):
            found = _norm(norm, offset)
            scale = torch.rsqrt(x.square().mean() + found.epsilon)
            if torch.allclose(norm(x), x * scale * found.weight, rtol=1e-5, atol=1e-6):
                return offset
    raise ValueError(f"{type(norm).__name__} is no root mean square norm")


def _norm(norm: Any, offset: float) -> decoding.Norm:
    epsilon = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    weight = norm.weight.detach()
    return decoding.Norm((weight + offset if offset else weight).contiguous(), float(epsilon))
