"""The one place where a causal model's outputs are shifted by one.

A causal model's output at position t speaks of token t + 1. Everything above this module
uses the other convention, position t speaks of token t (see `tutelage.experience`), so the
shift happens here, for log-probabilities and for values alike.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from tutelage.models.attention import attend_short_rows
from tutelage.models.frozen_layers import SplitTrunk
from tutelage.models.norm import keep_less_of_norms
from tutelage.models.products import multiply_through_onednn
from tutelage.models.rotation import rotate_in_one_pass
from tutelage.models.shared_prefix import SharedPrefixRows

__all__ = ["Backbone", "Within", "autocast", "base_model", "position_ids", "scalar_head", "scatter"]

_AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 1e-1, torch.float16: 1e-2}
"""How far two ways to the same hidden state may differ: rounding, after a norm to unit scale."""

Within = Callable[[], AbstractContextManager[None]]
"""Makes a context in which a model is to be run."""


def position_ids(attention_mask: Bool[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """Positions counted from the first real token, on whichever side the padding lies."""
    return (attention_mask.long().cumsum(1) - 1).clamp(min=0)


def base_model(model: PreTrainedModel) -> PreTrainedModel:
    """The transformer beneath a model's head; the model itself where it has none."""
    return cast(PreTrainedModel, model.base_model)


@contextmanager
def autocast(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Matrix products in `dtype`; nothing happens for float32."""
    if dtype is torch.float32:
        yield
    else:
        with torch.autocast(device.type, dtype=dtype):
            yield


def scalar_head(head: nn.Linear, states: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch"]:
    """One number per state, in float32 whatever the autocast format.

    bfloat16 has 8 bits: near 5 its numbers are 0.03 apart, so that close scores would become equal
    and small errors of a critic vanish. The head is a thousandth of the work.
    """
    bias = None if head.bias is None else head.bias.float()
    with torch.autocast(states.device.type, enabled=False):
        return nn.functional.linear(states.float(), head.weight.float(), bias).squeeze(-1)


def scatter(
    picked: Float[Tensor, " selected"], mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Puts one number per selected position back into place; 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=picked.dtype, device=picked.device).masked_scatter(
        mask, picked
    )


class Backbone(nn.Module):
    """Hidden states of a transformer, ahead of any head."""

    def __init__(
        self,
        model: PreTrainedModel,
        compute: torch.dtype = torch.float32,
        within: Within = nullcontext,
    ) -> None:
        """Wraps a model that has a `base_model`.

        Args:
            model: any transformer.
            compute: autocast format.
            within: entered around each forward pass; chooses among the model's adapters.
        """
        super().__init__()
        self.model = model
        self.compute = compute
        self.within = within
        self.split: SplitTrunk | None = None
        """Frozen blocks apart from the others, where there are some."""
        multiply_through_onednn(model)
        keep_less_of_norms(model)
        rotate_in_one_pass(model)
        if compute is not torch.float32:
            attend_short_rows(model)

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        attention_mask: Bool[Tensor, "batch time"],
        lower_states: Float[Tensor, "batch time hidden"] | None = None,
    ) -> Float[Tensor, "batch time hidden"]:
        """Hidden states after the last norm; those of padding mean nothing.

        Args:
            tokens: rows padded on any side.
            attention_mask: which of them are no padding.
            lower_states: from `lower_states`, where they are known already.
        """
        inputs = self._inputs(attention_mask)
        if lower_states is None:
            return self._states(tokens, **inputs)
        assert self.split is not None, "lower states of a trunk without frozen blocks"
        with self.within(), autocast(tokens.device, self.compute):
            return self.split.upper(lower_states, **inputs)

    @torch.no_grad()
    def lower_states(
        self, tokens: Int[Tensor, "batch time"], attention_mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time hidden"]:
        """What the frozen blocks make of the tokens; see `split`."""
        assert self.split is not None, "lower states of a trunk without frozen blocks"
        with autocast(tokens.device, self.compute):
            return self.split.lower(tokens, **self._inputs(attention_mask))

    def _inputs(self, attention_mask: Tensor) -> dict[str, Tensor]:
        inputs: dict[str, Tensor] = {}
        if not self._is_causal_behind(attention_mask):
            inputs["attention_mask"] = attention_mask
            inputs["position_ids"] = position_ids(attention_mask)
        return inputs

    def _states(self, tokens: Tensor, **inputs: Tensor) -> Tensor:
        with self.within(), autocast(tokens.device, self.compute):
            hidden: Tensor = base_model(self.model)(
                input_ids=tokens, use_cache=False, **inputs
            ).last_hidden_state
        return hidden

    def _is_causal_behind(self, attention_mask: Tensor) -> bool:
        """Whether all padding lies behind the tokens, where a causal model never sees it.

        Attention without a mask is faster, and positions are then the default ones.
        """
        starts = attention_mask[:, 1:] & ~attention_mask[:, :-1]
        return not bool(starts.any()) and self.looks_back_only

    @cached_property
    def looks_back_only(self) -> bool:
        """Whether a state depends on nothing that comes after it."""
        tokens = torch.tensor([[0, 0], [0, 1]], device=self.model.device)
        with torch.no_grad():
            first, second = self._states(tokens)[:, 0]
        return torch.allclose(first, second, atol=1e-6)

    def of_shared_prefixes(self, rows: SharedPrefixRows) -> Float[Tensor, "sequences hidden"]:
        """The state after the last token of each sequence."""
        hidden = self._states(
            rows.tokens,
            attention_mask=rows.additive_mask(torch.float32),
            position_ids=rows.positions,
        )
        return hidden[rows.row, rows.last]

    @cached_property
    def reads_shared_prefixes(self) -> bool:
        """Whether sequences in one row come out as they do in rows of their own.

        Architectures that ignore a mask or positions given to them do not; this asks the model
        rather than a list of names.
        """
        if not self.looks_back_only or getattr(self.model.config, "sliding_window", None):
            return False
        sequences = ((0, 1, 0), (0, 1, 1, 0))
        with torch.no_grad():
            together = self.of_shared_prefixes(
                SharedPrefixRows.collate([sequences], pad=0, device=self.model.device)
            )
            alone = [
                self._states(torch.tensor([ids], device=self.model.device))[0, -1]
                for ids in sequences
            ]
        return torch.allclose(together, torch.stack(alone), atol=_AGREEMENT[self.compute])

    def before(
        self,
        tokens: Int[Tensor, "batch time"],
        attention_mask: Bool[Tensor, "batch time"],
        selected: Bool[Tensor, "batch time"],
        lower_states: Float[Tensor, "batch time hidden"] | None = None,
    ) -> Float[Tensor, "selected hidden"]:
        """The state in which each selected token was chosen: the hidden state one earlier."""
        assert not selected[:, 0].any(), "the first token of a row has no state before it"
        hidden = self(tokens, attention_mask, lower_states)
        return hidden[:, :-1][selected[:, 1:]]
