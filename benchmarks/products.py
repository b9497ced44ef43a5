"""Float32 layers through oneDNN beside torch's own, on a CPU: `python -m benchmarks.products`.

Forward and backward, with gradients of inputs and weights. A ratio is the median of rounds in each
of which both ways had a turn.
"""

import argparse
import statistics
import sys
import time

import torch
from torch import Tensor, nn

from tutelage.models.products import OneDnnLinear

_WIDTHS = ((128, 128), (128, 512), (512, 128), (128, 2048), (576, 576), (576, 1536), (1536, 576))
"""Of inputs and outputs: the tiny model's and those of 135 million weights."""
_TOKENS = (64, 256, 1024, 2048)


def main(arguments: list[str] | None = None) -> int:
    """Prints a line for each width, with a ratio for each number of tokens."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    print("times faster than torch.nn.Linear, by tokens; 1 where small products are left to it")
    print("  width in -> out  " + "".join(f"{tokens:>8}" for tokens in _TOKENS))
    for width, outputs in _WIDTHS:
        cells = (_ratio(width, outputs, tokens, chosen.rounds) for tokens in _TOKENS)
        print(
            f"{width:>10} -> {outputs:<5}" + "".join(f"{cell:8.2f}" for cell in cells), flush=True
        )
    return 0


def _ratio(width: int, outputs: int, tokens: int, rounds: int) -> float:
    random = torch.Generator().manual_seed(0)
    own = nn.Linear(width, outputs, bias=False)
    ours = OneDnnLinear.of(own)
    x = torch.randn(tokens, width, generator=random).requires_grad_()
    upstream = torch.randn(tokens, outputs, generator=random)
    for way in (own, ours):
        _seconds(way, x, upstream)
    turns = [_seconds(own, x, upstream) / _seconds(ours, x, upstream) for _ in range(rounds)]
    return statistics.median(turns)


def _seconds(way: nn.Linear, x: Tensor, upstream: Tensor) -> float:
    began = time.perf_counter()
    torch.autograd.grad(way(x), (x, way.weight), upstream)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
