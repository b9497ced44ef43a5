"""Rotary position embedding of queries and keys, in one pass over memory.

    y_1 = x_1 cos_1 - x_2 sin_1            y_2 = x_2 cos_2 + x_1 sin_2
    dL/dx_1 = g_1 cos_1 + g_2 sin_2        dL/dx_2 = g_2 cos_2 - g_1 sin_1

with the halves x_1, x_2 of a head (Su et al. 2021, eq. 34, in the order that transformers stores).
An attention of transformers finds the function that does this by its name, in its own module. Here
it gets a copy of its forward pass in which the name stands for `Rotation`; the module stays as it
is, for other models.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn

from tutelage.native import training
from tutelage.native.calls import available

__all__ = ["Rotation", "computes_rotation", "rotate_in_one_pass"]

_NAME = "apply_rotary_pos_emb"

_Rotate = Callable[..., tuple[Tensor, Tensor]]


class Rotation:
    """Turns queries and keys in one pass where that is compiled, or else as before."""

    def __init__(self, before: _Rotate) -> None:
        """`before` is one for which `computes_rotation` holds."""
        self.before = before

    def __call__(
        self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *more: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        """Both turned, in their own formats.

        Args:
            query, key: of shape [batch, heads, time, size].
            cos, sin: of shape [batch, time, size], or of one row for all.
            more, named: what only `before` knows.
        """
        if more or named or not all(_suits(x, cos, sin) for x in (query, key)):
            return self.before(query, key, cos, sin, *more, **named)
        cos, sin = cos.contiguous(), sin.contiguous()
        turned = (cast(Tensor, _Rotated.apply(x, cos, sin)) for x in (query, key))
        return next(turned), next(turned)


def rotate_in_one_pass(model: nn.Module) -> None:
    """Has every attention of a model that turns its heads this way do it by `Rotation`."""
    for module in model.modules():
        own = type(module)
        forward = own.forward
        if not isinstance(forward, FunctionType) or _NAME not in forward.__code__.co_names:
            continue
        before = forward.__globals__.get(_NAME)
        if not isinstance(before, Rotation) and computes_rotation(before):
            copied = _with_name(forward, Rotation(before))
            module.__class__ = type(own.__name__, (own,), {"forward": copied})


def computes_rotation(rotate: Any) -> TypeGuard[_Rotate]:
    """Whether a function turns queries and keys as `Rotation` does, asked with a few numbers."""
    numbers = torch.linspace(-1.0, 2.0, 60, device="cpu")
    query, key = numbers[:48].view(1, 2, 3, 8), numbers[12:36].view(1, 1, 3, 8)
    cos, sin = numbers[20:44].view(1, 3, 8), numbers[36:].view(1, 3, 8)
    try:
        found = rotate(query, key, cos, sin)
        expected = [_rotated(x, cos, sin) for x in (query, key)]
        return all(torch.allclose(*both) for both in zip(found, expected, strict=True))
    except (IndexError, TypeError, RuntimeError, ValueError):
        return False


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]


def _with_name(function: FunctionType, rotation: Rotation) -> FunctionType:
    names = {**function.__globals__, _NAME: rotation}
    copied = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    copied.__kwdefaults__, copied.__doc__ = function.__kwdefaults__, function.__doc__
    copied.__annotations__, copied.__module__ = function.__annotations__, function.__module__
    return copied


def _suits(x: Tensor, cos: Tensor, sin: Tensor) -> bool:
    if x.dim() != 4 or not available(x.device, x.dtype):
        return False
    rows, _, time, size = x.shape
    return (
        size % 2 == 0
        and cos.dtype is sin.dtype is torch.float32
        and cos.shape == sin.shape
        and cos.shape in ((1, time, size), (rows, time, size))
    )


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return training.rotate(_in_rows(x), cos, sin)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        return (
            training.rotate(_in_rows(upstream[0]), *ctx.saved_tensors, of_gradient=True),
            None,
            None,
        )


def _in_rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()
