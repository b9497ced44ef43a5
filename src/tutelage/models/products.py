"""Products of linear layers on a CPU, through oneDNN.

    y = x W^T + b        dL/dx = g W        dL/dW = g^T x        dL/db = sum over rows of g

torch's default for float32 is Intel's MKL, which on processors of AMD reaches about half of
what oneDNN does, a library that comes with torch as well (`python -m benchmarks.products`);
bfloat16 is always oneDNN's. It prepares a kernel for each shape it meets and never gives the
kernel's memory back. Micro-batches have thousands of shapes, so that their rows are filled up
with zeros to one of a few numbers:

    rows of x           1 .. 32   then 16 sizes to each power of two: 34, 36 ... 64, 68 ... 128 ...
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.models.feed_forward import SwiGLU, computes_swiglu

__all__ = [
    "FilledFeedForward",
    "OneDnnLinear",
    "kernel",
    "multiply",
    "multiply_through_onednn",
    "packed",
    "product",
    "rows_of_a_kernel",
]

_WORTH_A_KERNEL = 1 << 22
"""Multiplications of a float32 product from which a kernel of its own pays."""
_FEED_FORWARD = {"gate_proj", "up_proj", "down_proj"}
"""Layers of the Llama family's, which combines them row by row."""
_NARROW = 256
"""Most inputs of a layer with more outputs for which its weights' gradient may be taken the other
way round, from two rows per input: 1.17 times faster of 128 inputs, 0.91 of 576, of 2,048 rows."""
_SIZES = 16
"""To each power of two; more would waste less on rows of zeros, of which there are at most a
sixteenth, and prepare more kernels."""


class OneDnnLinear(nn.Linear):
    """A linear layer whose large products on a CPU, and their gradients, are oneDNN's."""

    @classmethod
    def of(cls, linear: nn.Linear) -> "OneDnnLinear":
        """Takes over the parameters."""
        taken = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        taken.weight, taken.bias = linear.weight, linear.bias
        return taken.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """The product; see `product`."""
        return product(x, self.weight, self.bias)


class FilledFeedForward(nn.Module):
    """Mixed into a gated feed-forward block, which maps rows alone: they are filled up once."""

    def forward(self, x: Tensor) -> Tensor:
        """What the block makes of `x`."""
        gate = cast(nn.Linear, self.get_submodule("gate_proj"))
        if not _suits_onednn(x, gate.weight, _compute(x)):
            return cast(Tensor, super().forward(x))
        filled = cast(Tensor, _Fill.apply(x))
        return cast(Tensor, _Cut.apply(super().forward(filled), x.shape))


def multiply_through_onednn(model: nn.Module) -> None:
    """Makes every linear layer of a model a `OneDnnLinear`, in place, with the same parameters.

    Feed-forward blocks of the Llama family become `FilledFeedForward` as well, and `SwiGLU` where
    that is what they compute. Layers on other devices, and those of other classes, which compute or
    store something of their own, stay what they are.
    """
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and module.weight.device.type == "cpu":
            model.set_submodule(name, OneDnnLinear.of(module))
        elif {*dict(module.named_children())} - {"act_fn"} == _FEED_FORWARD:
            _fill_rows(module)


def _fill_rows(module: nn.Module) -> None:
    if not isinstance(module, FilledFeedForward):
        own = type(module)
        gated = (SwiGLU,) if computes_swiglu(module) else ()
        module.__class__ = type(own.__name__, (FilledFeedForward, *gated, own), {})


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, by the way that device, size and format call for, with its gradients."""
    compute = _compute(x)
    if _suits_onednn(x, weight, compute):
        return cast(Tensor, _Product.apply(x, _filled_once(x, compute), weight, bias))
    return functional.linear(x, weight, bias)


def packed(weight: Tensor) -> Tensor:
    """A weight on a CPU in the layout that suits oneDNN best, for `multiply`."""
    return cast(Tensor, torch.ops.mkldnn._reorder_linear_weight(weight.contiguous()))


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b; the weight may be packed, or be the transpose of a stored one."""
    rows = x.reshape(-1, x.shape[-1])
    result = kernel(_filled(rows), weight, bias)[: len(rows)]
    return result.view(*x.shape[:-1], result.shape[1])


def rows_of_a_kernel(rows: int) -> int:
    """The next number of rows, from this one on, that gets a kernel."""
    step = max(1, (1 << rows.bit_length()) // (2 * _SIZES))
    return -(-rows // step) * step


def _compute(x: Tensor) -> torch.dtype:
    """Format of a product."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _suits_onednn(x: Tensor, weight: Tensor, compute: torch.dtype) -> bool:
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if compute is torch.bfloat16:
        return True
    large = x.numel() * weight.shape[0] >= _WORTH_A_KERNEL
    return large and compute is x.dtype is weight.dtype is torch.float32


def _filled_once(x: Tensor, compute: torch.dtype) -> Tensor:
    """`x` as filled rows of a format, without gradient; layers that read one tensor share them."""
    if x.is_inference():  # Changes in place are not counted there.
        return _filled_rows(x, compute)
    key = (x._version, compute)
    known = getattr(x, "_filled", None)
    if known is None or known[0] != key:
        known = (key, _filled_rows(x, compute))
        x._filled = known  # type: ignore[attr-defined]
    return cast(Tensor, known[1])


def _filled_rows(x: Tensor, compute: torch.dtype) -> Tensor:
    return _filled(x.detach().to(compute).reshape(-1, x.shape[-1]))


def _filled(rows: Tensor) -> Tensor:
    """With rows of zeros behind, and dense: what is not would be multiplied number by number."""
    size = rows_of_a_kernel(len(rows))
    if size == len(rows):
        return rows.contiguous()
    filled = rows.new_empty(size, rows.shape[1])
    filled[: len(rows)] = rows
    filled[len(rows) :] = 0.0
    return filled


class _Fill(torch.autograd.Function):
    """All rows of a tensor, filled up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return _filled(x.reshape(-1, x.shape[-1]))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        return upstream[0][: ctx.shape[:-1].numel()].view(ctx.shape)


class _Cut(torch.autograd.Function):
    """The rows that were there before, in their shape but for the last dimension."""

    @staticmethod
    def forward(ctx: Any, filled: Tensor, shape: torch.Size) -> Tensor:
        return filled[: shape[:-1].numel()].view(*shape[:-1], filled.shape[-1])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return _filled(upstream[0].reshape(-1, upstream[0].shape[-1])), None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, filled: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.shape, ctx.rows, ctx.formats = x.shape, x[..., 0].numel(), (x.dtype, weight.dtype)
        weight = weight.to(filled.dtype)
        bias = None if bias is None else bias.to(filled.dtype)
        ctx.save_for_backward(filled, weight)
        return _product_of_rows(filled, weight, bias)[: ctx.rows].view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        filled, weight = ctx.saved_tensors
        of_x, _, of_weight, of_bias = ctx.needs_input_grad
        of_input, of_parameters = ctx.formats
        gradient, of_rows = _filled(upstream[0].reshape(-1, len(weight))), None
        if of_x:
            of_rows = _product_of_rows(gradient, weight.t())[: ctx.rows]
            of_rows = of_rows.view(ctx.shape).to(of_input)
        return (
            of_rows,
            None,
            _product_of_columns(gradient, filled).to(of_parameters) if of_weight else None,
            gradient.sum(0, dtype=of_parameters) if of_bias else None,
        )


def _product_of_rows(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b; in bfloat16 torch takes oneDNN by itself."""
    if x.dtype is torch.float32:
        return kernel(x, weight, bias)
    return functional.linear(x, weight, bias)


def _product_of_columns(a: Tensor, b: Tensor) -> Tensor:
    """a^T b; as (b^T a)^T where a wide result is so much faster that it pays to turn it over."""
    if a.dtype is not torch.float32:
        return a.t() @ b
    rows, width = b.shape
    if width < a.shape[1] and width <= _NARROW and rows >= 2 * width:
        # In the order of the weight: the fused AdamW reads a gradient as if it were.
        return kernel(b.t(), a.t()).t().contiguous()
    return kernel(a.t(), b.t())


def kernel(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b of exactly these rows."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))
