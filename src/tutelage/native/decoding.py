"""The library's functions, with tensors for addresses: what is not as they read it is refused.

A step of decoding is matrix products, and between them one pass over memory each:

    add_and_normalise ─> W_qkv ─> read ─> W_o ─> add_and_normalise ─> W_gate ─> gate ─> W_down

Sums are float32 in any format, and no result depends on the number of threads.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tutelage.native.calls import address, call

__all__ = ["SIZES", "Heads", "Norm", "add_and_normalise", "draw", "gate", "read"]

SIZES = frozenset(16 * lanes for lanes in (1, 2, 3, 4, 5, 6, 8, 16))
"""Sizes of a head that are compiled."""


@dataclass(frozen=True)
class Norm:
    """x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich 2019, eq. 4)."""

    weight: Float[Tensor, " width"]
    """float32."""
    epsilon: float


@dataclass(frozen=True)
class Heads:
    """How the result of the joined product of a block is divided."""

    queries: int
    keys: int
    """Key heads, and value heads; each serves as many consecutive queries."""
    size: int
    """One of `SIZES`."""
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    """Of each head before it is turned; both or none, with one epsilon."""

    @property
    def width(self) -> int:
        """Numbers of a token: its queries, keys and values."""
        return (self.queries + 2 * self.keys) * self.size


def add_and_normalise(
    x: Float[Tensor, "rows width"],
    added: Float[Tensor, "rows width"] | None,
    norm: Norm,
    dtype: torch.dtype,
) -> Float[Tensor, "rows width"]:
    """Adds to `x` in place, and gives the norm of the sum in `dtype`.

    Args:
        x: float32.
        added: in `dtype`; None for nothing.
        norm: of the sum.
        dtype: float32 or bfloat16.
    """
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=dtype)
    call(
        "add_and_normalise",
        dtype,
        address(x, torch.float32, rows, width),
        None if added is None else address(added, dtype, rows, width),
        address(norm.weight, torch.float32, width),
        norm.epsilon,
        out.data_ptr(),
        rows,
        width,
    )
    return out


def gate(gate_up: Float[Tensor, "rows both"]) -> Float[Tensor, "rows half"]:
    """silu(gate) * up of rows in which these two lie side by side (Shazeer 2020, eq. 6)."""
    rows, both = gate_up.shape
    out = gate_up.new_empty(rows, both // 2)
    joined = address(gate_up, gate_up.dtype, rows, 2 * (both // 2))
    call("gate", gate_up.dtype, joined, out.data_ptr(), rows, both // 2)
    return out


def read(
    joined: Float[Tensor, "rows time width"],
    rotation: tuple[Float[Tensor, "rows time size"], Float[Tensor, "rows time size"]],
    heads: Heads,
    keys: Float[Tensor, "places heads columns size"],
    values: Float[Tensor, "places heads columns size"],
    place: Int[Tensor, " rows"],
    start: Int[Tensor, " rows"],
    column: int,
    scale: float,
) -> Float[Tensor, "rows time asked"]:
    """Turns queries and keys, stores keys and values from `column` on, and lets queries ask.

    A token sees its row from `start` up to itself. Tokens before `start` are padding: they store
    nothing, and what they hear is 0. Queries and keys are turned in place.

    Args:
        joined: queries, keys and values side by side.
        rotation: cosine, and sine with the sign that the other half of a head has beside it;
            float32.
        heads: how `joined` is divided.
        keys, values: stores, in the format of `joined`.
        place: where each row lies in the stores; no two in one.
        start: first column of each row.
        column: that of the first token.
        scale: of the scores before the softmax.

    Returns:
        What queries heard.

    Raises:
        ValueError: the stores have no room for these tokens, or a start is none of their columns,
            or a place none of theirs.
    """
    rows, time, dtype = *joined.shape[:2], joined.dtype
    places, room = len(keys), keys.shape[2]
    if heads.size not in SIZES or column < 0 or column + time > room:
        raise ValueError(
            f"found {time} tokens of size {heads.size} from column {column} on of {room}, expected "
            f"room for them and a size of {sorted(SIZES)}"
        )
    out = joined.new_empty(rows, time, heads.queries * heads.size)
    store = (places, heads.keys, room, heads.size)
    query_norm, key_norm = heads.query_norm, heads.key_norm
    weights = (
        None if norm is None else address(norm.weight, torch.float32, heads.size)
        for norm in (query_norm, key_norm)
    )
    possible = call(
        "read",
        dtype,
        address(joined, dtype, rows, time, heads.width),
        *(address(part, torch.float32, rows, time, heads.size) for part in rotation),
        *weights,
        0.0 if query_norm is None else query_norm.epsilon,
        heads.queries,
        heads.keys,
        heads.size,
        address(keys, dtype, *store),
        address(values, dtype, *store),
        out.data_ptr(),
        address(place, torch.long, rows),
        places,
        address(start, torch.long, rows),
        rows,
        time,
        room,
        column,
        scale,
    )
    if not possible:
        raise ValueError(
            f"found starts {start.tolist()} and places {place.tolist()}, expected starts of 0 to "
            f"{room} and places of 0 to {places - 1}"
        )
    return out


def draw(
    logits: Float[Tensor, "rows vocabulary"], temperature: float, uniform: Float[Tensor, " rows"]
) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """The token up to which the probabilities add up to more than `uniform`, and its log.

    Temperature 0 takes the most likely token; its log-probability is then at temperature 1.

    Args:
        logits: of the next token; read twice, and not changed.
        temperature: divides them.
        uniform: float32, from 0 to below 1.
    """
    rows, vocabulary = logits.shape
    tokens, logprobs = torch.empty(rows, dtype=torch.long), torch.empty(rows)
    call(
        "draw",
        logits.dtype,
        address(logits, logits.dtype, rows, vocabulary),
        address(uniform, torch.float32, rows),
        tokens.data_ptr(),
        logprobs.data_ptr(),
        rows,
        vocabulary,
        temperature,
    )
    return tokens, logprobs
