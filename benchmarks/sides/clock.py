"""Clocks of a side that times a part of its call by itself."""

import time

import torch

__all__ = ["now"]


def now(device: str) -> tuple[float, float]:
    """Wall and CPU seconds, once everything that the device was given to do is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()
