"""The root mean square norm of the Llama family, which keeps less for its backward pass.

    y = f x w                f = 1 / sqrt(mean(x^2) + epsilon), of each row
    dL/dx = f (w g) - x f^3 / width * sum(w g x)        dL/dw = sum over rows of f g x

(Zhang and Sennrich 2019, eq. 4). What is kept is x, which the stream keeps anyway, and one number
for each row. Forward and backward pass are compiled where `tutelage.native` is.
"""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from tutelage.native import training
from tutelage.native.calls import available

__all__ = ["RootMeanSquareNorm", "computes_root_mean_square", "keep_less_of_norms"]


class RootMeanSquareNorm(nn.Module):
    """Mixed into a norm for which `computes_root_mean_square` holds."""

    def forward(self, x: Tensor) -> Tensor:
        """The norm of `x`, in float32; what has another format is left to the norm itself."""
        weight = cast(Tensor, self.weight)
        if x.dtype is not torch.float32 or weight.dtype is not torch.float32:
            return cast(Tensor, super().forward(x))
        return cast(Tensor, _Normalised.apply(x, weight, _epsilon(self)))


def keep_less_of_norms(model: nn.Module) -> None:
    """Makes every norm of a model that computes it a `RootMeanSquareNorm`, in place."""
    for module in model.modules():
        own = type(module)
        if not isinstance(module, RootMeanSquareNorm) and computes_root_mean_square(module):
            module.__class__ = type(own.__name__, (RootMeanSquareNorm, own), {})


def computes_root_mean_square(norm: nn.Module) -> bool:
    """Whether a module's own forward pass is x / sqrt(mean(x^2) + epsilon) * weight and no more.

    It is asked with a small weight in the place of its own, which may have no numbers yet.
    """
    if [*norm._parameters] != ["weight"] or norm._modules or norm._buffers:
        return False
    weight = torch.tensor([0.5, -2.0, 3.0], device="cpu")
    stand_in = copy.copy(norm)
    stand_in._parameters = {"weight": nn.Parameter(weight, requires_grad=False)}
    x = torch.tensor([[-1.0, 0.5, 2.0], [1e-3, 0.0, 2e-3]], device="cpu")
    try:
        found, epsilon = norm.__class__.forward(stand_in, x), _epsilon(norm)
    except (AttributeError, TypeError, RuntimeError, ValueError):
        return False
    expected = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * weight
    return isinstance(found, Tensor) and torch.allclose(found, expected, rtol=1e-5, atol=1e-7)


def _epsilon(norm: Any) -> float:
    return float(norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if available(x.device, x.dtype):
            rows = rows.contiguous()
            out, factors = training.normalise(rows, weight, epsilon)
        else:
            factors = torch.rsqrt(rows.square().mean(-1) + epsilon)
            out = rows * factors[:, None] * weight
        ctx.save_for_backward(rows, weight, factors)
        return out.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, factors = ctx.saved_tensors
        gradient = upstream[0].reshape(rows.shape)
        if available(rows.device, rows.dtype):
            of_x, of_weight = training.normalise_backward(
                gradient.contiguous(), rows, weight, factors
            )
        else:
            weighted, factors = gradient * weight, factors[:, None]
            share = (weighted * rows).mean(-1, keepdim=True) * factors**3
            of_x = weighted * factors - rows * share
            of_weight = (gradient * rows * factors).sum(0)
        needs_x, needs_weight, _ = ctx.needs_input_grad
        found = of_x.view(upstream[0].shape) if needs_x else None
        return found, of_weight if needs_weight else None, None
