"""Attention of short rows beside torch's fused kernel, on a CPU: `python -m benchmarks.attention`.

1,024 tokens in rows of each length, nine heads of 64, three heads of keys, forward and backward,
queries and keys in float32 and values in bfloat16, as autocast passes them on. A ratio is the
median of rounds in each of which both ways had a turn.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tutelage.models.attention import LONGEST, short_row_attention

_LENGTHS = (32, 64, 100, LONGEST, 160, 200, 256, 512)
_TOKENS, _HEADS, _KEY_HEADS, _SIZE = 1024, 9, 3, 64


def main(arguments: list[str] | None = None) -> int:
    """Prints a line for each length."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    print("row length  times faster than the fused kernel (smallest to largest of the rounds)")
    for length in _LENGTHS:
        ratios = sorted(_ratios(length, chosen.rounds))
        median = statistics.median(ratios)
        print(f"{length:10}  {median:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)
    return 0


def _ratios(length: int, rounds: int) -> list[float]:
    random = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(_TOKENS // length, length, heads, _SIZE, generator=random)
        for heads in (_HEADS, _KEY_HEADS, _KEY_HEADS)
    )
    tensors = tuple(t.transpose(1, 2).requires_grad_() for t in (query, key, value.bfloat16()))
    for way in (_short, _fused):
        _seconds(way, tensors)
    return [_seconds(_fused, tensors) / _seconds(_short, tensors) for _ in range(rounds)]


def _seconds(way: Callable[..., Tensor], tensors: Sequence[Tensor]) -> float:
    began = time.perf_counter()
    out = way(*tensors)
    torch.autograd.grad(out, tensors, torch.ones_like(out))
    return time.perf_counter() - began


def _short(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return short_row_attention(query.bfloat16(), key.bfloat16(), value, _SIZE**-0.5, causal=True)


def _fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(
        query.bfloat16(), key.bfloat16(), value, is_causal=True, enable_gqa=True
    )


if __name__ == "__main__":
    sys.exit(main())
