"""Next-token logits of a Llama-family model, with far fewer operations than its own forward pass.

    x = embed(tokens)
    per layer:  q, k, v = W_qkv norm(x)          one product instead of three
                rotate q, k;  append k, v to the cache
                x += W_o attention(q, cache)
                x += W_down (act(W_gate norm(x)) * (W_up norm(x)))     gate and up: one product
    logits = W_head norm(x)

The weights are copied out of the transformers model, joined, and laid out as the processor's
matrix product wants them, with what an adapter adds to them; `refresh` copies them again when
training has changed them. Whether a model is of this family is not asked of its name: the parts
must be there, and the logits must be those of the model itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Self, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from tutelage.config.sharing import READ_AT_ONCE
from tutelage.models.adapters import effective_weight
from tutelage.models.causal import base_model
from tutelage.models.column_cache import WORTH_COPYING, ColumnCache
from tutelage.models.decoder_operations import (
    BlockShape,
    NativeOperations,
    Operations,
    PlainOperations,
)
from tutelage.models.products import multiply, packed

__all__ = ["Decoder"]

_AGREEMENT = {torch.float32: 1e-3, torch.bfloat16: 2e-1}
"""Largest difference of logits of unit scale from the model's own; a part that is missing or
misread, such as a norm's offset, moves them by more."""
_PACK_FROM = 1 << 13
"""Weights from which a layout of its own is faster than the plain matrix product."""


@dataclass
class _Layer:
    """One transformer block, its products joined and packed."""

    module: Any
    qkv: "_Linear"
    out: "_Linear"
    gate_up: "_Linear"
    down: "_Linear"


class _Linear:
    """x W^T + b of one or several linear layers at once, in a given format."""

    def __init__(self, modules: Sequence[nn.Linear], dtype: torch.dtype) -> None:
        self._modules, self._dtype = modules, dtype
        self.refresh()

    def refresh(self) -> None:
        weights = [effective_weight(module) for module in self._modules]
        weight = torch.cat(weights).to(self._dtype)
        biases: list[Tensor] = [m.bias for m in self._modules if m.bias is not None]
        self._bias = torch.cat(biases).to(self._dtype) if biases else None
        self._packed = _packed(weight)
        self._weight = None if self._packed is not None else weight.contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(self._dtype)
        if self._packed is not None:
            return multiply(x, self._packed, self._bias)
        assert self._weight is not None
        return functional.linear(x, self._weight, self._bias)


def _packed(weight: Tensor) -> Tensor | None:
    """The weight in oneDNN's own layout, where there is one and it pays."""
    usable = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    if not usable or weight.numel() < _PACK_FROM:
        return None
    return packed(weight)


class Decoder:
    """Decodes with the weights that a transformers model has at the moment."""

    def __init__(self, model: PreTrainedModel, compute: torch.dtype) -> None:
        """Reads the model's parts; see `of` for a model that may not have them.

        Raises:
            AttributeError: the model is built otherwise.
        """
        # Which parts the model has is not known before they are asked for.
        self._base = cast(Any, base_model(model))
        config, attention = model.config, self._base.layers[0].self_attn
        self._shape = BlockShape(
            heads=config.num_attention_heads,
            key_heads=config.num_key_value_heads,
            size=attention.head_dim,
            scale=attention.scaling,
            compute=compute,
        )
        self._layers = [self._read(layer) for layer in self._base.layers]
        self._head = _Linear([model.get_output_embeddings()], compute)
        native = NativeOperations.of(self._shape, self._base.layers, self._base.norm)
        self._operations: Operations = native or PlainOperations(self._shape)

    @classmethod
    @torch.no_grad()
    def of(cls, model: PreTrainedModel, compute: torch.dtype = torch.float32) -> Self | None:
        """A decoder for the model; None where the model is not built in this way."""
        if getattr(model.config, "sliding_window", None):
            return None
        try:
            decoder = cls(model, compute)
            return decoder if decoder._agrees_with(model) else None
        except (AttributeError, TypeError, RuntimeError, ValueError):
            return None

    @property
    def native(self) -> bool:
        """Whether what lies between its products is compiled."""
        return isinstance(self._operations, NativeOperations)

    @property
    def idle_share(self) -> float:
        """Share of the rows that may have ended and stay: to let them leave would cost more."""
        return 0.0 if self._operations.finds_rows else WORTH_COPYING

    def refresh(self) -> None:
        """Copies the model's weights again: nothing tells whether training has changed them."""
        for layer in self._layers:
            for linear in (layer.qkv, layer.out, layer.gate_up, layer.down):
                linear.refresh()
        self._head.refresh()
        self._operations.refresh()

    def prefill(
        self, tokens: Int[Tensor, "rows time"], start: Int[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "rows vocabulary"], ColumnCache]:
        """Reads prompts that are padded on the left up to column `start`.

        Rows are read in pieces, each without the padding that all its rows share: rows of like
        length are best side by side.

        Args:
            tokens: prompts that end in the same column.
            start: first column of each that is no padding.

        Returns:
            Logits of the token after each prompt, and the keys and values so far.
        """
        starts, width = start.tolist(), tokens.shape[1]
        cache = self._empty_cache(start, (min(starts), max(starts)), width)
        at_once = READ_AT_ONCE.get(tokens.device.type, READ_AT_ONCE["cuda"])
        logits = []
        for rows in _pieces([width - first for first in starts], at_once):
            own = min(starts[rows]), max(starts[rows])
            logits.append(self._forward(tokens[rows, own[0] :], cache, rows, own))
        return torch.cat(logits), cache

    def step(
        self, tokens: Int[Tensor, " rows"], cache: ColumnCache
    ) -> Float[Tensor, "rows vocabulary"]:
        """Reads one more token of each row; logits of the one after it."""
        if not self._operations.finds_rows:
            cache.close_up()
        cache.reserve()
        cache.end += 1
        return self._forward(tokens[:, None], cache, slice(None), cache.starts)

    def _empty_cache(self, start: Tensor, starts: tuple[int, int], columns: int) -> ColumnCache:
        """Zeros in front of each row: what nobody reads must still be no NaN."""
        shape = len(start), self._shape.key_heads, columns, self._shape.size
        keys, values = (
            [torch.zeros(shape, dtype=self._shape.compute, device=start.device) for _ in layers]
            for layers in (self._layers, self._layers)
        )
        place = torch.arange(len(start), device=start.device)
        return ColumnCache(keys, values, start, starts, columns, place)

    def _forward(
        self,
        tokens: Int[Tensor, "rows time"],
        cache: ColumnCache,
        place: slice,
        starts: tuple[int, int],
    ) -> Float[Tensor, "rows vocabulary"]:
        """Reads tokens into the last columns written, of the rows at `place`."""
        column = cache.end - tokens.shape[1]
        do, x = self._operations, self._embed(tokens)
        columns = torch.arange(column, cache.end, device=tokens.device)
        positions = (columns - cache.start[place, None]).clamp(min=0)
        attend = do.reading(self._rotation(x, positions), cache, place, column, starts)
        change: Tensor | None = None
        for number, layer in enumerate(self._layers):
            block = layer.module
            x, read = do.add_and_normalise(x, change, block.input_layernorm)
            heard = attend(number, block.self_attn, layer.qkv(read))
            x, read = do.add_and_normalise(x, layer.out(heard), block.post_attention_layernorm)
            change = layer.down(do.gate(block.mlp, layer.gate_up(read)))
        assert change is not None, "a model has blocks"
        _, read = do.add_and_normalise(_last(x), _last(change), self._base.norm)
        return self._head(read[:, 0])

    def _embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self._base.embed_tokens(tokens)
        return embedded

    def _agrees_with(self, model: PreTrainedModel) -> bool:
        """Whether logits of two short rows are those of the model's own forward pass."""
        device, compute = model.device, self._shape.compute
        tokens = torch.arange(10, device=device).view(2, 5) % model.config.vocab_size
        _, cache = self.prefill(tokens, torch.tensor([0, 2], device=device))
        ours = self.step(torch.ones(2, dtype=torch.long, device=device), cache)
        theirs = torch.stack([_last_logits(model, [*row, 1]) for row in (tokens[0], tokens[1, 2:])])
        return torch.allclose(ours.float(), theirs.float(), atol=_AGREEMENT[compute], rtol=1e-2)

    def _read(self, layer: Any) -> _Layer:
        attention, mlp, compute = layer.self_attn, layer.mlp, self._shape.compute
        return _Layer(
            layer,
            qkv=_Linear([attention.q_proj, attention.k_proj, attention.v_proj], compute),
            out=_Linear([attention.o_proj], compute),
            gate_up=_Linear([mlp.gate_proj, mlp.up_proj], compute),
            down=_Linear([mlp.down_proj], compute),
        )

    def _rotation(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine, and sine with the sign that the other half of a head has beside it."""
        cosine, sine = self._base.rotary_emb(x, positions)
        left, right = sine.chunk(2, -1)
        return cosine, torch.cat((-left, right), -1)


def _pieces(lengths: Sequence[int], tokens: int) -> list[slice]:
    """Consecutive rows, of about as many tokens in each piece: `tokens` or more, if there are."""
    total = sum(lengths)
    count = max(1, total // tokens)
    piece_of = [(behind - 1) * count // total for behind in accumulate(lengths)]
    ends = [row for row in range(1, len(lengths)) if piece_of[row] != piece_of[row - 1]]
    return [slice(begin, end) for begin, end in pairwise((0, *ends, len(lengths)))]


def _last(x: Tensor) -> Tensor:
    """The last token of each row."""
    return x[:, -1:].contiguous()


def _last_logits(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    tokens = torch.tensor([[int(i) for i in ids]], device=model.device)
    logits: Tensor = model(input_ids=tokens, use_cache=False).logits[0, -1]
    return logits
