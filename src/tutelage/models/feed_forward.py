"""The gated feed-forward block of the Llama family, which keeps less for its backward pass.

    y = W_down (silu(g) * u)        g = W_gate x        u = W_up x
    dL/du = silu(g) * dL/dh         dL/dg = silu'(g) * u * dL/dh        h = silu(g) * u

SwiGLU (Shazeer 2020, eq. 6). silu(g) is computed again in the backward pass, and products are
written over one of their factors: g, u and h are kept and silu(g) is not, and of five tensors of
their width, forward and backward, two are not made. Where `tutelage.native` is compiled, each pass
is one over memory; the numbers are those of autograd elsewhere, bit for bit.
"""

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.native import training
from tutelage.native.calls import available

__all__ = ["SwiGLU", "computes_swiglu", "swiglu"]


class SwiGLU(nn.Module):
    """Mixed into a block for which `computes_swiglu` holds."""

    def forward(self, x: Tensor) -> Tensor:
        """What the block makes of `x`."""
        gate, up = self.get_submodule("gate_proj")(x), self.get_submodule("up_proj")(x)
        return cast(Tensor, self.get_submodule("down_proj")(swiglu(gate, up)))


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, of one shape; of two formats the wider."""
    if gate.dtype is not up.dtype:
        return functional.silu(gate) * up
    return cast(Tensor, _SwiGLU.apply(gate, up))


def computes_swiglu(block: nn.Module) -> bool:
    """Whether a block's own forward pass is W_down (silu(W_gate x) * (W_up x)) and no more.

    It is asked with numbers in the place of layers: one that reads anything else has another form.
    """
    layers = {"gate_proj": 3.0, "up_proj": -2.0, "down_proj": 5.0}
    stand_in = SimpleNamespace(
        **{name: lambda x, factor=factor: x * factor for name, factor in layers.items()},
        act_fn=getattr(block, "act_fn", None),
    )
    x = torch.tensor([-1.0, 0.5, 2.0], device="cpu")
    try:
        found = type(block).forward(cast(Any, stand_in), x)
    except (AttributeError, TypeError):
        return False
    return torch.equal(found, functional.silu(x * 3.0) * (x * -2.0) * 5.0)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        if _compiled(gate, up):
            return training.swiglu(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        of_gate, of_up = ctx.needs_input_grad
        of_product, found = upstream[0], None
        if of_gate and of_up and _compiled(of_product, gate, up):
            return training.swiglu_backward(of_product, gate, up)
        if of_gate:
            found = of_product * up
            torch.ops.aten.silu_backward.grad_input(found, gate, grad_input=found)
        return found, functional.silu(gate).mul_(of_product) if of_up else None


def _compiled(*tensors: Tensor) -> bool:
    first = tensors[0]
    dense = all(each.is_contiguous() for each in tensors)
    return dense and available(first.device, first.dtype)
