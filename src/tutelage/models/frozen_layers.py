"""A transformer in two parts: lower blocks that are frozen, and the rest.

    tokens ──embeddings, blocks 1 to k──> lower states ──blocks k + 1 to L, norm──> hidden states
             once for each round of PPO                 in every pass

What does not change need not be computed again, and everything that stands on the same frozen
blocks reads the same lower states.
"""

import copy
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from tutelage.errors import ModelError

__all__ = ["SplitTrunk"]


class SplitTrunk:
    """Both parts of a transformer, made of its own modules."""

    def __init__(self, base: PreTrainedModel, count: int) -> None:
        """Cuts above the lowest `count` blocks; nothing is copied and nothing frozen yet.

        Raises:
            ModelError: the transformer has fewer blocks, or does not come out the same in two
                parts.
        """
        self._name = type(base).__name__
        blocks = getattr(base, "layers", None)
        if not isinstance(blocks, nn.ModuleList) or not hasattr(base, "norm"):
            raise self._cannot_be_cut()
        if count > len(blocks):
            raise ModelError(
                f"frozen_layers is {count}, but {self._name} has only {len(blocks)} blocks: "
                f"freeze {len(blocks)} or fewer"
            )
        self._lower = _blocks(base, 0, count)
        self._lower.norm = nn.Identity()
        self._upper = _blocks(base, count, len(blocks))
        if not self._agrees_with(base):
            raise self._cannot_be_cut()

    def freeze(self) -> None:
        """Takes the gradients of the lower part away; a head tied to the embeddings is in it."""
        self._lower.requires_grad_(False)

    def lower(
        self, tokens: Int[Tensor, "batch time"], **inputs: Tensor
    ) -> Float[Tensor, "batch time hidden"]:
        """What the lower blocks make of tokens."""
        return _last(self._lower(input_ids=tokens, use_cache=False, **inputs))

    def upper(
        self, lower: Float[Tensor, "batch time hidden"], **inputs: Tensor
    ) -> Float[Tensor, "batch time hidden"]:
        """What the upper blocks and the last norm make of `lower`."""
        return _last(self._upper(inputs_embeds=lower, use_cache=False, **inputs))

    def _cannot_be_cut(self) -> ModelError:
        return ModelError(
            f"{self._name} cannot be run in two parts: expected blocks called layers, a norm "
            "behind them and nothing else in between, as in Llama; set frozen_layers to 0"
        )

    @torch.no_grad()
    def _agrees_with(self, base: PreTrainedModel) -> bool:
        """Whether both parts, one after the other, are the whole; padding included."""
        device = base.device
        tokens = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 1, 0]], device=device)
        mask = torch.tensor([[1] * 5, [0, 0, 1, 1, 1]], dtype=torch.bool, device=device)
        inputs = {"attention_mask": mask, "position_ids": (mask.long().cumsum(1) - 1).clamp(min=0)}
        try:
            parts = self.upper(self.lower(tokens, **inputs), **inputs)
        except (AttributeError, TypeError, ValueError, IndexError, RuntimeError):
            return False
        whole = _last(base(input_ids=tokens, use_cache=False, **inputs))
        return torch.allclose(parts[mask], whole[mask], rtol=1e-4, atol=1e-5)


def _blocks(base: PreTrainedModel, start: int, end: int) -> Any:
    """The same model with some of its blocks; all modules are the model's own."""
    part = cast(Any, copy.copy(base))
    # A shallow copy would share the table of modules too, and lose the model's other blocks.
    part._modules = dict(part._modules)
    part.layers = part.layers[start:end]
    part.config = copy.copy(base.config)
    types = getattr(base.config, "layer_types", None)
    if types is not None:
        part.config.layer_types = types[start:end]
    return part


def _last(output: Any) -> Tensor:
    return cast(Tensor, output.last_hidden_state)
