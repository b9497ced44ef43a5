"""Activations that are computed again instead of kept.

Of each block only its input is kept for the backward pass, which runs the block once more (Chen
et al. 2016, arXiv:1604.06174): memory that grows with the square root of the depth at best, for
about a third more computation. transformers does so in training mode alone, and in training mode
it keeps no cache to decode with: a model is in training mode while it is updated, and only then.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from tutelage.errors import ModelError
from tutelage.models.adapters import repeated_alike

__all__ = ["recompute_activations", "training_mode"]


def recompute_activations(model: PreTrainedModel) -> None:
    """Switches gradient checkpointing on for all blocks of a model, its adapters included.

    Raises:
        ModelError: the architecture has no such switch.
    """
    if not model.supports_gradient_checkpointing:
        raise ModelError(
            f"{type(model).__name__} cannot compute its activations again: set "
            "batch.gradient_checkpointing to false"
        )
    options = {"use_reentrant": False, "context_fn": repeated_alike(model)}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    # Switched on along with it, and needed by the reentrant variant alone: frozen embeddings would
    # be given gradients that go nowhere.
    model.disable_input_require_grads()


@contextmanager
def training_mode(*models: nn.Module) -> Iterator[None]:
    """Models in training mode, and afterwards in the mode that they were in."""
    before = [model.training for model in models]
    for model in models:
        model.train()
    try:
        yield
    finally:
        for model, training in zip(models, before, strict=True):
            model.train(training)
