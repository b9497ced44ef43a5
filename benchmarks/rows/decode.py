"""C1, H1: decoding with all rows alive to the end.

Timed: a whole batch of prompts of one length, answers of one length, sampled from the full
distribution, the log-probability of each drawn token returned.

    ours   `LocalEngine.generate`
    peers  transformers `generate` with its scores, and `generate_batch` with log-probabilities
           (continuous batching; cache and batch limits set on CPU, where its own are far off);
           vLLM for CPUs where it can be installed

Weights are in the row's format on all sides. The limit is the roofline: what memory must be
read and what products must be made for every token.
"""

from typing import Any

from benchmarks.core.row import Row, Side, clocks

__all__ = ["c1", "c1f", "c1t", "h1", "h1b", "h1c"]


def c1(quick: bool) -> Row:
    """135M in bfloat16."""
    goal = ">= 3x generate, >= 65 % of the roofline"
    return _row("C1", "135M", "bfloat16", (64, 64, 128), goal, quick)


def c1f(quick: bool) -> Row:
    """135M in float32."""
    goal = ">= 2.2x generate, >= 75 % of the roofline"
    return _row("C1f", "135M", "float32", (64, 64, 128), goal, quick)


def c1t(quick: bool) -> Row:
    """tiny in float32."""
    return _row("C1t", "tiny", "float32", (128, 64, 128), ">= 5x generate", quick)


def h1(quick: bool) -> Row:
    """135M in bfloat16 on a GPU."""
    goal = ">= 10x generate, >= 4x generate_batch, >= 45 % of the roofline"
    return _row("H1", "135M", "bfloat16", (256, 128, 256), goal, quick, "cuda")


def h1b(quick: bool) -> Row:
    """1B in bfloat16 on a GPU."""
    goal = ">= 5x generate, >= 2.5x generate_batch, >= 65 % of the roofline"
    return _row("H1b", "1B", "bfloat16", (256, 128, 256), goal, quick, "cuda")


def h1c(quick: bool) -> Row:
    """One sequence, 1B in bfloat16 on a GPU."""
    return _row("H1c", "1B", "bfloat16", (1, 128, 512), ">= 65 % of the roofline", quick, "cuda")


def _row(
    name: str,
    shape: str,
    dtype: str,
    sizes: tuple[int, int, int],
    goal: str,
    quick: bool,
    device: str = "cpu",
) -> Row:
    batch, prompt, answer = (4, 8, 12) if quick else sizes
    shape = "micro" if quick else shape
    requests: dict[str, Any] = {
        "shape": shape,
        "count": batch,
        "shortest": prompt,
        "longest": prompt,
        "answer": answer,
        "full": True,
    }
    options = {"requests": requests, "dtype": dtype, "device": device}
    module = "benchmarks.sides.rollouts"
    vllm = Side("vLLM", "benchmarks.sides.vllm_engine:VLLM", options, "vllm", dtype)
    return Row(
        name,
        f"decode, {shape} {dtype}, batch {batch}, prompt {prompt}, {answer} new",
        goal,
        [
            Side(
                "tutelage",
                f"{module}:OurEngine",
                {**options, "batch": batch},
                "tutelage",
                dtype,
                True,
            ),
            Side("generate", f"{module}:Generate", options, "peer", dtype),
            Side("generate_batch", f"{module}:GenerateBatch", options, "peer", dtype),
            *([vllm] if device == "cpu" else []),
        ],
        quantities=clocks(device),
        device=device,  # type: ignore[arg-type]
        work={"kind": "decode", "requests": requests},
    )
