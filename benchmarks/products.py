"""Linear layers through oneDNN beside torch's own, on a CPU: `python -m benchmarks.products`.

Forward and backward, with gradients of inputs and weights. First float32 layers of fixed numbers of
tokens: a ratio is the median of rounds in each of which both ways had a turn. Then the gradient of
the weights alone, as (b^T a)^T beside a^T b. Then both formats with another number of tokens each
time, as micro-batches have them, each way in a process of its own: seconds, and memory that is
still held when all tensors are gone.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.core.machine import memory_of_process
from tutelage.models.causal import autocast
from tutelage.models.products import OneDnnLinear, kernel

_WIDTHS = ((128, 128), (128, 512), (512, 128), (128, 2048), (576, 576), (576, 1536), (1536, 576))
"""Of inputs and outputs: the tiny model's and those of 135 million weights."""
_TOKENS = (64, 256, 1024, 2048)
_TURNED = ((64, 256), (128, 512), (256, 1024), (576, 1536), (960, 2560), (2048, 8192))
_VARIED = {"float32": ((128, 128), (128, 512), (512, 128)), "bfloat16": _WIDTHS[4:]}
_FROM, _TO = 600, 4000
"""Tokens of micro-batches that differ."""


def main(arguments: list[str] | None = None) -> int:
    """Prints a line for each width, with a ratio for each number of tokens, and one per format."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--varied", type=int, default=200, metavar="N", help="numbers of tokens")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    if chosen.way:
        print(json.dumps(_varied(chosen.way, chosen.varied)))
        return 0
    print("times faster than torch.nn.Linear, by tokens; 1 where small products are left to it")
    print("  width in -> out  " + "".join(f"{tokens:>8}" for tokens in _TOKENS))
    for width, outputs in _WIDTHS:
        _print_row(_ratio, width, outputs, chosen.rounds)
    print("\ngradient of the weights, the other way round: times faster, by tokens")
    for width, outputs in _TURNED:
        _print_row(_turned, width, outputs, chosen.rounds)
    print(f"\n{chosen.varied} numbers of tokens from {_FROM} to {_TO}: times faster, MiB kept")
    for compute in _VARIED:
        own, ours = (_apart(f"{way} {compute}", chosen) for way in ("torch", "onednn"))
        ratio = own["seconds"] / ours["seconds"]
        print(
            f"  {compute:<9}{ratio:6.2f}   {ours['mib']:5.0f} against {own['mib']:.0f}", flush=True
        )
    return 0


def _print_row(
    measure: Callable[[int, int, int, int], float], width: int, outputs: int, rounds: int
) -> None:
    cells = (measure(width, outputs, tokens, rounds) for tokens in _TOKENS)
    print(f"{width:>10} -> {outputs:<5}" + "".join(f"{cell:8.2f}" for cell in cells), flush=True)


def _ratio(width: int, outputs: int, tokens: int, rounds: int) -> float:
    random_numbers = torch.Generator().manual_seed(0)
    own = nn.Linear(width, outputs, bias=False)
    ours = OneDnnLinear.of(own)
    x = torch.randn(tokens, width, generator=random_numbers).requires_grad_()
    upstream = torch.randn(tokens, outputs, generator=random_numbers)
    for way in (own, ours):
        _seconds(way, x, upstream)
    turns = [_seconds(own, x, upstream) / _seconds(ours, x, upstream) for _ in range(rounds)]
    return statistics.median(turns)


def _turned(width: int, outputs: int, tokens: int, rounds: int) -> float:
    x, gradient = torch.randn(tokens, width), torch.randn(tokens, outputs)

    def seconds(way: Callable[[], Tensor]) -> float:
        began = time.perf_counter()
        way()
        return time.perf_counter() - began

    def straight() -> Tensor:
        return kernel(gradient.t(), x.t())

    def turned() -> Tensor:
        return kernel(x.t(), gradient.t()).t().contiguous()

    straight()
    turned()
    return statistics.median(seconds(straight) / seconds(turned) for _ in range(rounds))


def _seconds(way: nn.Linear, x: Tensor, upstream: Tensor) -> float:
    began = time.perf_counter()
    torch.autograd.grad(way(x), (x, way.weight), upstream)
    return time.perf_counter() - began


def _apart(way: str, chosen: argparse.Namespace) -> dict[str, float]:
    """What `_varied` finds in a new process: memory that kernels took is never given back."""
    command = [sys.executable, "-m", "benchmarks.products", "--way", way]
    command += ["--varied", str(chosen.varied), "--threads", str(chosen.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _varied(way: str, count: int) -> dict[str, float]:
    whose, compute = way.split()
    layers = [nn.Linear(width, outputs, bias=False) for width, outputs in _VARIED[compute]]
    if whose == "onednn":
        layers = [OneDnnLinear.of(layer) for layer in layers]
    draw = random.Random(0)
    _rounds(layers, compute, [_TO])
    before = memory_of_process("VmRSS")
    seconds = _rounds(layers, compute, [draw.randint(_FROM, _TO) for _ in range(count)])
    return {"seconds": seconds, "mib": (memory_of_process("VmRSS") - before) / 2**20}


def _rounds(layers: list[nn.Linear], compute: str, tokens: list[int]) -> float:
    format_ = getattr(torch, compute)
    seconds = 0.0
    for number in tokens:
        for layer in layers:
            x = torch.randn(number, layer.in_features, requires_grad=True)
            upstream = torch.randn(number, layer.out_features, dtype=format_)
            with autocast(x.device, format_):
                seconds += _seconds(layer, x, upstream)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
