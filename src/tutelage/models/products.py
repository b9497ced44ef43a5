"""Float32 products of linear layers on a CPU, through oneDNN.

    y = x W^T + b        dL/dx = g W        dL/dW = g^T x        dL/db = sum over rows of g

torch's default for float32 is Intel's MKL, which on processors of AMD reaches about half of
what oneDNN does, a library that comes with torch as well (`python -m benchmarks.products`). It
prepares a kernel for each shape it meets, so that small products stay with the default.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["OneDnnLinear", "multiply", "multiply_through_onednn", "packed", "product"]

_WORTH_A_KERNEL = 1 << 22
"""Multiplications of a product from which a kernel of its own pays."""


class OneDnnLinear(nn.Linear):
    """A linear layer whose large float32 products on a CPU, and their gradients, are oneDNN's."""

    @classmethod
    def of(cls, linear: nn.Linear) -> "OneDnnLinear":
        """Takes over the parameters."""
        taken = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        taken.weight, taken.bias = linear.weight, linear.bias
        return taken.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """The product; see `product`."""
        return product(x, self.weight, self.bias)


def multiply_through_onednn(model: nn.Module) -> None:
    """Makes every linear layer of a model a `OneDnnLinear`, in place, with the same parameters.

    Layers on other devices, and those of other classes, which compute or store something of their
    own, stay what they are.
    """
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and module.weight.device.type == "cpu":
            model.set_submodule(name, OneDnnLinear.of(module))


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, by the way that device, size and format call for, with its gradients."""
    if _suits_onednn(x, weight):
        return cast(Tensor, _Product.apply(x, weight, bias))
    return functional.linear(x, weight, bias)


def packed(weight: Tensor) -> Tensor:
    """A weight on a CPU in the layout that suits oneDNN best, for `multiply`."""
    return cast(Tensor, torch.ops.mkldnn._reorder_linear_weight(weight.contiguous()))


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b; the weight may be packed, or be the transpose of a stored one."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * weight.shape[0] >= _WORTH_A_KERNEL
        and not torch.is_autocast_enabled("cpu")
    )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        gradient = upstream[0].reshape(-1, len(weight))
        rows = x.reshape(-1, weight.shape[1])
        return (
            multiply(gradient, weight.t()).view(x.shape) if of_x else None,
            _product_of_columns(gradient, rows) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def _product_of_columns(a: Tensor, b: Tensor) -> Tensor:
    """a^T b; a result of fewer rows than columns is up to twice as fast as the other way round."""
    if a.shape[1] > b.shape[1]:
        # In the order of the weight: the fused AdamW reads a gradient as if it were.
        return multiply(b.t(), a.t()).t().contiguous()
    return multiply(a.t(), b.t())
