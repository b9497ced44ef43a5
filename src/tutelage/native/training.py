"""Norm, rotation and activation of training, forward and backward, in one pass over memory each."""

import torch
from jaxtyping import Float
from torch import Tensor

from tutelage.native.calls import address, address_of_rows, call

__all__ = ["normalise", "normalise_backward", "rotate", "swiglu", "swiglu_backward"]

_ROWS = 64
"""Rows whose gradients of a weight are added up at once, in the source as well."""


def swiglu(gate: Float[Tensor, "*shape"], up: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """silu(gate) * up (Shazeer 2020, eq. 6)."""
    dtype, shape, out = gate.dtype, gate.shape, torch.empty_like(gate)
    places = (address(each, dtype, *shape) for each in (gate, up, out))
    call("swiglu", dtype, *places, gate.numel())
    return out


def swiglu_backward(
    upstream: Float[Tensor, "*shape"], gate: Float[Tensor, "*shape"], up: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """The gradients of gate and up: g up s (1 + gate (1 - s)) and g gate s, s = sigmoid(gate)."""
    dtype, shape = gate.dtype, gate.shape
    found = torch.empty_like(gate), torch.empty_like(gate)
    places = (address(each, dtype, *shape) for each in (upstream, gate, up, *found))
    call("swiglu_backward", dtype, *places, gate.numel())
    return found


def normalise(
    x: Float[Tensor, "rows width"], weight: Float[Tensor, " width"], epsilon: float
) -> tuple[Float[Tensor, "rows width"], Float[Tensor, " rows"]]:
    """f x w, and f = 1 / sqrt(mean(x^2) + epsilon) (Zhang and Sennrich 2019, eq. 4); float32."""
    rows, width = x.shape
    out, factors = torch.empty_like(x), x.new_empty(rows)
    call(
        "normalise",
        torch.float32,
        address(x, torch.float32, rows, width),
        address(weight, torch.float32, width),
        epsilon,
        out.data_ptr(),
        factors.data_ptr(),
        rows,
        width,
    )
    return out, factors


def normalise_backward(
    upstream: Float[Tensor, "rows width"],
    x: Float[Tensor, "rows width"],
    weight: Float[Tensor, " width"],
    factors: Float[Tensor, " rows"],
) -> tuple[Float[Tensor, "rows width"], Float[Tensor, " width"]]:
    """The gradients of x and w: f w g - x f^3 / width sum(w g x), and the sum of f g x over rows.

    Rows are added up in blocks of one size, whatever the number of threads.
    """
    rows, width = x.shape
    of_x, of_weight = torch.empty_like(x), x.new_empty(-(-rows // _ROWS), width)
    call(
        "normalise_backward",
        torch.float32,
        address(upstream, torch.float32, rows, width),
        address(x, torch.float32, rows, width),
        address(weight, torch.float32, width),
        address(factors, torch.float32, rows),
        of_x.data_ptr(),
        of_weight.data_ptr(),
        rows,
        width,
    )
    return of_x, of_weight.sum(0)


def rotate(
    x: Float[Tensor, "rows heads time size"],
    cosine: Float[Tensor, "_ time size"],
    sine: Float[Tensor, "_ time size"],
    *,
    of_gradient: bool = False,
) -> Float[Tensor, "rows heads time size"]:
    """Each head turned by the angles of its token (Su et al. 2021, eq. 34), in the order of `x`.

    Args:
        x: of an even size; heads and tokens may lie in any order.
        cosine, sine: float32, of each row or of one for all.
        of_gradient: the same transposed, for the gradient of what was turned.

    Raises:
        ValueError: something is of another format or shape.
    """
    rows, _, time, size = x.shape
    angles = len(cosine)
    if size % 2 or angles not in (1, rows):
        raise ValueError(f"found heads of {size} numbers and angles of {angles} of {rows} rows")
    out = torch.empty_like(x)
    call(
        "rotate",
        x.dtype,
        address_of_rows(x, x.dtype, *x.shape),
        address(cosine, torch.float32, angles, time, size),
        address(sine, torch.float32, angles, time, size),
        address_of_rows(out, x.dtype, *x.shape),
        *x.shape,
        *x.stride()[:3],
        *out.stride()[:3],
        0 if angles == 1 else time * size,
        of_gradient,
    )
    return out
