"""The rows of the benchmark, one file per family."""

from collections.abc import Callable

from benchmarks.core.row import Row
from benchmarks.rows import (
    decode,
    head,
    idle,
    learning,
    memory,
    overhead,
    overlap,
    ppo,
    refresh,
    rollout,
    scoring,
    start,
    training,
    update,
)

__all__ = ["ROWS"]

ROWS: dict[str, Callable[[bool], Row]] = {
    "C1": decode.c1,
    "C1f": decode.c1f,
    "C1t": decode.c1t,
    "C2": rollout.c2,
    "C2f": rollout.c2f,
    "C3": scoring.c3,
    "C4": update.c4,
    "C4b": update.c4b,
    "C4bt": update.c4bt,
    "C5": ppo.c5,
    "C5b": ppo.c5b,
    "C5bt": ppo.c5bt,
    "C6": ppo.c6,
    "C6b": ppo.c6b,
    "C6f": ppo.c6f,
    "C6bf": ppo.c6bf,
    "C7": learning.c7,
    "C8": overhead.c8,
    "C8t": overhead.c8t,
    "C9": memory.c9,
    "C10": start.c10,
    "H1": decode.h1,
    "H1b": decode.h1b,
    "H1c": decode.h1c,
    "H2": rollout.h2,
    "H3": training.h3,
    "H3b": training.h3b,
    "H3c": training.h3c,
    "H4": ppo.h4,
    "H4b": ppo.h4b,
    "H5": refresh.h5,
    "H5b": refresh.h5b,
    "H6": head.h6,
    "H6b": head.h6b,
    "H7": overlap.h7,
    "H8": idle.h8,
}
"""Row by name; the argument asks for a version of toy size."""
