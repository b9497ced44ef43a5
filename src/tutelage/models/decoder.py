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

from collections.abc import Callable, Sequence
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
from tutelage.models.attention import new_token_attention, new_token_mask, prompt_attention
from tutelage.models.causal import base_model
from tutelage.models.products import multiply, packed

__all__ = ["ColumnCache", "Decoder"]

_AGREEMENT = {torch.float32: 1e-3, torch.bfloat16: 2e-1}
"""Largest difference of logits of unit scale from the model's own; a part that is missing or
misread, such as a norm's offset, moves them by more."""
_BLOCK = 32
"""Columns added at a time: adding one would copy everything at every token."""
_PACK_FROM = 1 << 13
"""Weights from which a layout of its own is faster than the plain matrix product."""


@dataclass
class ColumnCache:
    """Keys and values of rows that all write into the same column.

        row 0   . . p p p y y y|          start 2
        row 1   p p p p p y y y|          start 0

    Prompts are padded on the left, so that one column takes the next token of every row.
    """

    keys: list[Float[Tensor, "rows heads columns size"]]
    """Of each layer."""
    values: list[Float[Tensor, "rows heads columns size"]]
    start: Int[Tensor, " rows"]
    """First column of each row."""
    end: int
    """Columns written so far; those behind are room for more."""

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drops all rows but those given, and the columns in front that none of them uses."""
        self.start = self.start[rows]
        first = int(self.start.min())
        self._change(lambda store: store[:, :, first : self.end][rows])
        self.start = self.start - first
        self.end -= first

    def reserve(self) -> None:
        """Makes room for one more column."""
        if self.end == self.keys[0].shape[2]:
            self._change(_longer)

    def repeat(self, times: int) -> None:
        """Every row `times` times, side by side."""
        if times > 1:
            self.start = self.start.repeat_interleave(times)
            self._change(lambda store: store.repeat_interleave(times, 0))

    def _change(self, change: Callable[[Tensor], Tensor]) -> None:
        self.keys = [change(store) for store in self.keys]
        self.values = [change(store) for store in self.values]


def _longer(store: Tensor) -> Tensor:
    """With room for more columns, which hold anything until they are written."""
    rows, heads, columns, size = store.shape
    longer = store.new_empty(rows, heads, columns + _BLOCK, size)
    longer[:, :, :columns] = store
    return longer


@dataclass
class _Layer:
    """One transformer block, its products joined and packed."""

    module: nn.Module
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
        self._compute = compute
        config = model.config
        attention = self._base.layers[0].self_attn
        self._size: int = attention.head_dim
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        self._scale: float = attention.scaling
        self._layers = [self._read(layer) for layer in self._base.layers]
        self._head = _Linear([model.get_output_embeddings()], compute)

    @classmethod
    @torch.no_grad()
    def of(cls, model: PreTrainedModel, compute: torch.dtype = torch.float32) -> Self | None:
        """A decoder for the model; None where the model is not built in this way."""
        if getattr(model.config, "sliding_window", None):
            return None
        try:
            decoder = cls(model, compute)
            tokens = torch.arange(10, device=model.device).view(2, 5) % model.config.vocab_size
            _, cache = decoder.prefill(tokens, torch.tensor([0, 2], device=model.device))
            ours = decoder.step(torch.ones(2, dtype=torch.long, device=model.device), cache)
        except (AttributeError, TypeError, RuntimeError):
            return None
        theirs = torch.stack([_last_logits(model, [*row, 1]) for row in (tokens[0], tokens[1, 2:])])
        close = torch.allclose(ours.float(), theirs.float(), atol=_AGREEMENT[compute], rtol=1e-2)
        return decoder if close else None

    def refresh(self) -> None:
        """Copies the model's weights again: nothing tells whether training has changed them."""
        for layer in self._layers:
            for linear in (layer.qkv, layer.out, layer.gate_up, layer.down):
                linear.refresh()
        self._head.refresh()

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
        cache = self._empty_cache(start, tokens.shape[1])
        lengths = (tokens.shape[1] - start).tolist()
        at_once = READ_AT_ONCE.get(tokens.device.type, READ_AT_ONCE["cuda"])
        logits = [
            self._read_piece(tokens, lengths[rows], rows, cache)
            for rows in _pieces(lengths, at_once)
        ]
        return torch.cat(logits), cache

    def _empty_cache(self, start: Tensor, columns: int) -> ColumnCache:
        """Zeros in front of each row: what nobody reads must still be no NaN."""
        shape = len(start), self._kv_heads, columns, self._size
        keys, values = (
            [torch.zeros(shape, dtype=self._compute, device=start.device) for _ in self._layers]
            for _ in range(2)
        )
        return ColumnCache(keys, values, start, columns)

    def _read_piece(
        self, tokens: Tensor, lengths: Sequence[int], place: slice, cache: ColumnCache
    ) -> Float[Tensor, "rows vocabulary"]:
        """Reads some of the rows, without the columns in front that are padding in all of them.

        `lengths` are these rows' own: to ask the device for them would wait for it at each piece.
        """
        rows, time = len(lengths), max(lengths)
        first = tokens.shape[1] - time
        tokens, start = tokens[place, first:], cache.start[place] - first
        columns = torch.arange(time, device=tokens.device)
        own = columns[None, None, :] >= start[:, None, None]
        sees = (columns[None, None, :] <= columns[None, :, None]) & own
        # Padding sees itself: a row of nothing but -inf would turn into NaN and spread.
        sees = sees | torch.eye(time, dtype=torch.bool, device=tokens.device)
        mask = None if min(lengths) == time else self._additive(sees[:, None])
        x = self._embed(tokens)
        rotation = self._rotation(x, (columns[None] - start[:, None]).clamp(min=0))
        for number, layer in enumerate(self._layers):
            query, key, value = self._project(layer, x, rotation)
            cache.keys[number][place, :, first:] = key
            cache.values[number][place, :, first:] = value
            attended = prompt_attention(query, key, value, mask, self._scale)
            x = self._finish(layer, x, attended.transpose(1, 2).reshape(rows, time, -1))
        return self._logits(x[:, -1])

    def step(
        self, tokens: Int[Tensor, " rows"], cache: ColumnCache
    ) -> Float[Tensor, "rows vocabulary"]:
        """Reads one more token of each row; logits of the one after it."""
        cache.reserve()
        column, rows = cache.end, len(tokens)
        first = int(cache.start.min())
        cache.end += 1
        mask = None
        if bool((cache.start > first).any()):
            columns = torch.arange(first, cache.end, device=tokens.device)
            mask = self._additive((columns[None] >= cache.start[:, None])[:, None, None])
            mask = new_token_mask(mask, self._kv_heads, self._heads // self._kv_heads)
        x = self._embed(tokens[:, None])
        rotation = self._rotation(x, (column - cache.start)[:, None])
        for number, layer in enumerate(self._layers):
            query, key, value = self._project(layer, x, rotation)
            cache.keys[number][:, :, column] = key[:, :, 0]
            cache.values[number][:, :, column] = value[:, :, 0]
            # Heads that share keys ask together, as if they were tokens.
            asked = query.reshape(rows, self._kv_heads, -1, self._size)
            attended = new_token_attention(
                asked,
                cache.keys[number][:, :, first : cache.end],
                cache.values[number][:, :, first : cache.end],
                mask,
                self._scale,
            )
            x = self._finish(layer, x, attended.reshape(rows, 1, -1))
        return self._logits(x[:, 0])

    def _additive(self, allowed: Tensor) -> Tensor:
        """The mask as attention adds it; made once, where a boolean one is converted per layer."""
        lowest = torch.finfo(self._compute).min
        zero = torch.zeros((), dtype=self._compute, device=allowed.device)
        return torch.where(allowed, zero, lowest)

    def _read(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        return _Layer(
            layer,
            qkv=_Linear([attention.q_proj, attention.k_proj, attention.v_proj], self._compute),
            out=_Linear([attention.o_proj], self._compute),
            gate_up=_Linear([mlp.gate_proj, mlp.up_proj], self._compute),
            down=_Linear([mlp.down_proj], self._compute),
        )

    def _embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self._base.embed_tokens(tokens)
        return embedded

    def _rotation(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine, and sine with the sign that the other half of a head has beside it."""
        cosine, sine = self._base.rotary_emb(x, positions)
        left, right = sine[:, None].chunk(2, -1)
        return cosine[:, None], torch.cat((-left, right), -1)

    def _project(
        self, layer: _Layer, x: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values `[rows, heads, time, size]`, rotated."""
        attention: Any = layer.module.self_attn
        joined = layer.qkv(layer.module.input_layernorm(x))  # type: ignore[operator]
        joined = joined.view(*x.shape[:2], -1, self._size)
        asking = self._heads + self._kv_heads
        both, value = joined.transpose(1, 2).split((asking, self._kv_heads), dim=1)
        if hasattr(attention, "q_norm"):
            query, key = both.split((self._heads, self._kv_heads), dim=1)
            both = torch.cat((attention.q_norm(query), attention.k_norm(key)), dim=1)
        rotated = _rotate(both, *rotation).to(value.dtype)
        query, key = rotated.split((self._heads, self._kv_heads), dim=1)
        return query, key, value

    def _finish(self, layer: _Layer, x: Tensor, attended: Tensor) -> Tensor:
        """The output projection and the feed-forward block, each added to the stream."""
        module: Any = layer.module
        x = x + layer.out(attended)
        gate, up = layer.gate_up(module.post_attention_layernorm(x)).chunk(2, -1)
        return x + layer.down(module.mlp.act_fn(gate).mul_(up))

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self._head(self._base.norm(x))
        return logits


def _pieces(lengths: Sequence[int], tokens: int) -> list[slice]:
    """Consecutive rows, of about as many tokens in each piece: `tokens` or more, if there are."""
    total = sum(lengths)
    count = max(1, total // tokens)
    piece_of = [(behind - 1) * count // total for behind in accumulate(lengths)]
    ends = [row for row in range(1, len(lengths)) if piece_of[row] != piece_of[row - 1]]
    return [slice(begin, end) for begin, end in pairwise((0, *ends, len(lengths)))]


def _rotate(x: Tensor, cosine: Tensor, signed_sine: Tensor) -> Tensor:
    return x * cosine + x.roll(x.shape[-1] // 2, -1) * signed_sine


def _last_logits(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    tokens = torch.tensor([[int(i) for i in ids]], device=model.device)
    logits: Tensor = model(input_ids=tokens, use_cache=False).logits[0, -1]
    return logits
