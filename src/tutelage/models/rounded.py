"""Frozen linear layers that are kept in bfloat16, half the bytes of float32.

Autocast to bfloat16 rounds a float32 matrix at every product; here it is rounded once. So a forward
pass under autocast gives the same numbers bit for bit, and nothing else of the model is touched:
embeddings, norms, biases, head and the stream between the layers stay float32.
"""

import torch
from torch import Tensor, nn

from tutelage.models.products import OneDnnLinear, product

__all__ = ["RoundedLinear", "round_linear_layers"]


class RoundedLinear(nn.Linear):
    """x W^T + b with W in bfloat16; in the format of x, or that of autocast."""

    @classmethod
    def of(cls, linear: nn.Linear) -> "RoundedLinear":
        """Takes over the weights, which are frozen from then on."""
        rounded = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        rounded.weight = nn.Parameter(linear.weight.detach().bfloat16(), requires_grad=False)
        rounded.bias = linear.bias
        return rounded.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """The product; outside autocast in the format of `x`."""
        weight = self.weight
        if not torch.is_autocast_enabled(x.device.type):
            weight = weight.to(x.dtype)
        return product(x, weight, self.bias)


def round_linear_layers(model: nn.Module) -> None:
    """Keeps every frozen float32 linear layer of a model in bfloat16 from now on."""
    for name, module in list(model.named_modules()):
        # Only the class itself: others compute or store something of their own.
        if type(module) in (nn.Linear, OneDnnLinear) and not module.weight.requires_grad:
            model.set_submodule(name, RoundedLinear.of(module))
