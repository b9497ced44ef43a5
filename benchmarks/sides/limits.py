"""How fast the machine could do the work: what cannot be beaten by any program.

    decoding   prompts: 2 N flops per token, the head for the last alone
               sum over steps of  max(weights' bytes / bandwidth, 2 N rows / flops)
                                  + bytes of the rows' keys and values / bandwidth
    scoring    2 N flops per real token, per model
    updates    6 N flops per real token, epoch and trained model
    between    what an update does between its products, each time in one pass over memory:
               16 hidden + 4 (queries + keys) + 8 mlp numbers per real token, epoch and block
    frozen     2 N flops per real token, once; a head tied to frozen embeddings 4 N in each epoch
    head       8 N flops per row: logits that are not kept are computed twice
    refresh    float32 weights read, and written in the engine's format

N counts the weights in matrix products, the head once; a model with a score instead of a
vocabulary has no head. Padding is nobody's due. Rates are measured in the same run.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.sides.requests import Requests
from benchmarks.sides.shapes import SHAPES, weights

__all__ = ["Rates", "least_seconds"]

BYTES = {"float32": 4, "bfloat16": 2}


class Rates:
    """A workload that measures the machine: products per second and bytes per second."""

    def __init__(self, dtype: str, device: str = "cpu") -> None:
        """Rates are those of one format on one device."""
        self.dtype, self.device = dtype, device

    def prepare(self) -> None:
        """Nothing to build."""

    def run(self) -> dict[str, float]:
        """The best of several tries each: interruptions only ever slow a try down."""
        import torch

        size = 8192 if self.device == "cuda" else 1536
        dtype = getattr(torch, self.dtype)
        a = torch.randn(size, size, device=self.device).to(dtype)
        product = min(_best(way, self.device) for way in _products(a))
        source = torch.zeros(2**28 if self.device == "cuda" else 2**26, device=self.device)
        target = torch.empty_like(source)
        copy = _best(lambda: target.copy_(source), self.device)
        return {
            "flops": 2.0 * size**3 / product,
            "bytes_per_s": 2.0 * source.numel() * source.element_size() / copy,
        }


def _products(a: Any) -> list[Callable[[], object]]:
    """Ways to multiply a matrix with itself or its transpose; the fastest is the machine's rate."""
    import torch

    from tutelage.models.products import multiply, packed

    ways: list[Callable[[], object]] = [lambda: a @ a]
    if a.device.type == "cpu" and torch.backends.mkldnn.is_available():
        # oneDNN with weights in its own order: on some processors faster than torch's default.
        weight = packed(a)
        ways.append(lambda: multiply(a, weight))
    return ways


def _best(work: Callable[[], object], device: str, tries: int = 7) -> float:
    import torch

    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def least_seconds(
    kind: str,
    requests: Mapping[str, Any],
    dtype: str,
    rates: Mapping[str, float],
    epochs: int = 1,
    models: int = 1,
    trunks: int = 2,
    frozen_layers: int = 0,
) -> float:
    """Seconds that the work takes at the machine's full rates.

    Args:
        kind: decode or rollout, score, update, or ppo, which is all three; between, head, refresh.
        requests: `Requests` as a mapping.
        dtype: format of weights and products.
        rates: `flops` and `bytes_per_s`.
        epochs: passes of an update.
        models: backbones without a head that are scored beside the policy's shape.
        trunks: trained by an update: 2 for policy and critic, 1 where they share it.
        frozen_layers: of the trunk, where there is one.
    """
    asked = Requests(**requests)
    match kind:
        case "decode" | "rollout":
            return _decode(asked, dtype, rates)
        case "score":
            return 2 * _weights(asked, models) * asked.real_tokens / rates["flops"]
        case "update":
            flops = _update(asked, epochs, trunks, frozen_layers)
            return flops * asked.real_tokens / rates["flops"]
        case "between":
            numbers = epochs * trunks * _between(asked) * asked.real_tokens
            return BYTES["float32"] * numbers / rates["bytes_per_s"]
        case "ppo":
            # Reward model and critic; a shared critic's values come with the policy's own pass,
            # and the reference's frozen layers with the update's.
            scored = _weights(asked, trunks) - _frozen(asked, frozen_layers)
            flops = 2 * scored + _update(asked, epochs, trunks, frozen_layers)
            return _decode(asked, dtype, rates) + flops * asked.real_tokens / rates["flops"]
        case "head":
            return 8 * weights(asked.shape)[1] * sum(asked.lengths) / rates["flops"]
        case "refresh":
            moved = BYTES["float32"] + BYTES[dtype]
            return moved * _weights(asked, 0) / rates["bytes_per_s"]
    raise ValueError(f"no limit is known for {kind!r}")


def _weights(asked: Requests, headless: int) -> int:
    """Of one model with a head and `headless` models of the same shape without."""
    layers, head = weights(asked.shape)
    return layers + head + headless * layers


def _frozen(asked: Requests, frozen_layers: int) -> float:
    """Weights of the frozen layers."""
    return weights(asked.shape)[0] * frozen_layers / SHAPES[asked.shape]["num_hidden_layers"]


def _update(asked: Requests, epochs: int, trunks: int, frozen_layers: int) -> float:
    """Operations per token."""
    layers, head = weights(asked.shape)
    frozen = _frozen(asked, frozen_layers)
    per_epoch = 6 * (trunks * layers - frozen) + (4 if frozen else 6) * head
    return epochs * per_epoch + 2 * frozen


def _between(asked: Requests) -> int:
    """Float32 numbers per token that are read and written between the products of a trunk.

    Forward and backward alike: a sum with its norm reads two rows of hidden and writes two, twice
    in a block; queries and keys are rotated; an activation reads gate and up and writes their
    product, and backwards reads three and writes two.
    """
    shape = SHAPES[asked.shape]
    head_size = shape.get("head_dim", shape["hidden_size"] // shape["num_attention_heads"])
    rotated = (shape["num_attention_heads"] + shape["num_key_value_heads"]) * head_size
    one_block = 16 * shape["hidden_size"] + 4 * rotated + 8 * shape["intermediate_size"]
    return shape["num_hidden_layers"] * one_block


def _decode(asked: Requests, dtype: str, rates: Mapping[str, float]) -> float:
    size, total = BYTES[dtype], _weights(asked, 0)
    shape = SHAPES[asked.shape]
    head_size = shape.get("head_dim", shape["hidden_size"] // shape["num_attention_heads"])
    per_token = 2 * shape["num_hidden_layers"] * shape["num_key_value_heads"] * head_size * size
    layers, head = weights(asked.shape)
    read = layers * sum(map(len, asked.prompts)) + head * len(asked.prompts)
    seconds = 2 * read / rates["flops"]
    # The first answer token comes out of the prompts' pass.
    for step in range(1, max(asked.lengths)):
        alive = [
            len(prompt) + step
            for prompt, length in zip(asked.prompts, asked.lengths, strict=True)
            if length > step
        ]
        reading, products = size * total / rates["bytes_per_s"], 2 * total * len(alive)
        seconds += max(reading, products / rates["flops"])
        seconds += sum(alive) * per_token / rates["bytes_per_s"]
    return seconds
