"""Settings of low-rank adapters."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from tutelage.config.base import Section

__all__ = ["LoRAConfig"]


class LoRAConfig(Section):
    """Trains low-rank adapters in the place of the weights (Hu et al. 2021, arXiv:2106.09685)."""

    rank: PositiveInt = 16
    """Rank of the change to each weight matrix."""
    alpha: PositiveFloat = 32.0
    """The change is multiplied by alpha / rank."""
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Layers that get an adapter: every linear layer below the head, or those with these names,
    such as q_proj."""
    quantise: Literal["none", "4bit"] = "none"
    """4bit keeps the weights below the adapters in 4-bit NormalFloat (QLoRA); it needs a CUDA GPU
    and the extra `qlora`."""
