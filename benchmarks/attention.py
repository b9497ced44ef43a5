"""Attention in plain operations beside torch's kernel on a CPU: `python -m benchmarks.attention`.

Nine heads of 64, three heads of keys. A ratio is the median of rounds in each of which both ways
had a turn.

    short rows  1,024 tokens in rows of each length, forward and backward, queries and keys in
                float32 and values in bfloat16, as autocast passes them on
    prompts     1,024 tokens in rows of each length in bfloat16, forward alone; those of more than
                64 are left to the kernel
    new tokens  one token of each of some rows, keys and values of 128 tokens out of stores that
                have room for more, of 30 layers in turn; fewer than 64 key heads of all rows are
                left to the kernel, and come out near 1
    compiled    prompts and new tokens by what is compiled for the processor, where there is a
                compiler, beside the faster of these ways; it turns heads and stores keys as well
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tutelage.models.attention import (
    LONGEST,
    new_token_attention,
    prompt_attention,
    short_row_attention,
)
from tutelage.native import decoding
from tutelage.native.calls import available

_LENGTHS = (32, 64, 100, LONGEST, 160, 200, 256, 512)
_PROMPTS = (16, 32, 64, 128)
_COMPILED_PROMPTS = (16, 64, 128, 256, 512, 1024)
_ROWS = (8, 32, 64, 128)
_TOKENS, _HEADS, _KEY_HEADS, _SIZE = 1024, 9, 3, 64
_LAYERS, _COLUMNS, _ROOM = 30, 128, 32


def main(arguments: list[str] | None = None) -> int:
    """Prints a line for each length and each number of rows."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attention",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    print("times faster than the fused kernel (smallest to largest of the rounds)")
    for length in _LENGTHS:
        _report(f"rows of {length}", _short_rows(length, chosen.rounds))
    for length in _PROMPTS:
        _report(f"prompts of {length}, bfloat16", _prompts(length, chosen.rounds))
    for rows in _ROWS:
        for dtype in (torch.bfloat16, torch.float32):
            name = f"new tokens of {rows} rows, {str(dtype).removeprefix('torch.')}"
            _report(name, _new_tokens(rows, dtype, chosen.rounds))
    if available(torch.device("cpu"), torch.float32):
        _report_compiled(chosen.rounds)
    return 0


def _report_compiled(rounds: int) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        for length in _COMPILED_PROMPTS:
            found = _compiled(_TOKENS // length, length, dtype, rounds)
            _report(f"compiled, prompts of {length}, {name}", found)
        for rows in _ROWS:
            found = _compiled(rows, 1, dtype, rounds)
            _report(f"compiled, {rows} new tokens, {name}", found)


def _report(name: str, found: Sequence[float]) -> None:
    ratios = sorted(found)
    median = statistics.median(ratios)
    print(f"{name:36}  {median:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)


def _short_rows(length: int, rounds: int) -> list[float]:
    random = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(_TOKENS // length, length, heads, _SIZE, generator=random)
        for heads in (_HEADS, _KEY_HEADS, _KEY_HEADS)
    )
    tensors = tuple(t.transpose(1, 2).requires_grad_() for t in (query, key, value.bfloat16()))

    def seconds(way: Callable[..., Tensor]) -> float:
        began = time.perf_counter()
        out = way(*tensors)
        torch.autograd.grad(out, tensors, torch.ones_like(out))
        return time.perf_counter() - began

    return _ratios(lambda: seconds(_fused), lambda: seconds(_short), rounds)


def _short(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return short_row_attention(query.bfloat16(), key.bfloat16(), value, _SIZE**-0.5, causal=True)


def _fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(
        query.bfloat16(), key.bfloat16(), value, is_causal=True, enable_gqa=True
    )


@torch.no_grad()
def _prompts(length: int, rounds: int) -> list[float]:
    random = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(_TOKENS // length, length, heads, _SIZE, generator=random)
        .bfloat16()
        .transpose(1, 2)
        for heads in (_HEADS, _KEY_HEADS, _KEY_HEADS)
    )

    def seconds(way: Callable[..., Tensor]) -> float:
        began = time.perf_counter()
        for _ in range(_LAYERS):
            way(query, key, value)
        return time.perf_counter() - began

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return prompt_attention(query, key, value, None, _SIZE**-0.5)

    return _ratios(lambda: seconds(_fused), lambda: seconds(plain), rounds)


@torch.no_grad()
def _new_tokens(rows: int, dtype: torch.dtype, rounds: int) -> list[float]:
    random = torch.Generator().manual_seed(0)
    query = torch.randn(rows, _KEY_HEADS, _HEADS // _KEY_HEADS, _SIZE, generator=random).to(dtype)
    shape = (2, rows, _KEY_HEADS, _COLUMNS + _ROOM, _SIZE)
    stores = [torch.randn(shape, generator=random).to(dtype) for _ in range(_LAYERS)]
    scale = _SIZE**-0.5

    def seconds(way: Callable[[Tensor, Tensor], Tensor]) -> float:
        began = time.perf_counter()
        for key, value in (store[:, :, :, :_COLUMNS] for store in stores):
            way(key, value)
        return time.perf_counter() - began

    def plain(key: Tensor, value: Tensor) -> Tensor:
        return new_token_attention(query, key, value, None, scale)

    def fused(key: Tensor, value: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, scale=scale)

    return _ratios(lambda: seconds(fused), lambda: seconds(plain), rounds)


@torch.no_grad()
def _compiled(rows: int, time_: int, dtype: torch.dtype, rounds: int) -> list[float]:
    """Of prompts, or of the token behind the columns of a store."""
    random = torch.Generator().manual_seed(0)
    heads = decoding.Heads(_HEADS, _KEY_HEADS, _SIZE)
    columns = time_ if time_ > 1 else _COLUMNS
    joined = torch.randn(rows, time_, heads.width, generator=random).to(dtype)
    rotation = torch.ones(rows, time_, _SIZE), torch.zeros(rows, time_, _SIZE)
    shape = (2, rows, _KEY_HEADS, columns + _ROOM, _SIZE)
    stores = [torch.randn(shape, generator=random).to(dtype) for _ in range(_LAYERS)]
    place, start = torch.arange(rows), torch.zeros(rows, dtype=torch.long)
    first, scale = columns - time_, _SIZE**-0.5

    def compiled() -> float:
        began = time.perf_counter()
        for keys, values in stores:
            decoding.read(joined, rotation, heads, keys, values, place, start, first, scale)
        return time.perf_counter() - began

    query, key, value = (
        part.transpose(1, 2)
        for part in joined.view(rows, time_, -1, _SIZE).split((_HEADS, _KEY_HEADS, _KEY_HEADS), 2)
    )

    def plain() -> float:
        began = time.perf_counter()
        for store in stores:
            if time_ > 1:
                prompt_attention(query, key, value, None, scale)
            else:
                asked = query.reshape(rows, _KEY_HEADS, -1, _SIZE)
                new_token_attention(asked, *store[:, :, :, :columns], None, scale)
        return time.perf_counter() - began

    return _ratios(plain, compiled, rounds)


def _ratios(fused: Callable[[], float], plain: Callable[[], float], rounds: int) -> list[float]:
    """Of the seconds of the two ways, after a turn of each that is not counted."""
    fused()
    plain()
    return [fused() / plain() for _ in range(rounds)]


if __name__ == "__main__":
    sys.exit(main())
