"""Memory that has run out: how to know it, and how to go on.

Whoever can do its work in smaller pieces catches the error, calls `release_memory` once the error
is gone, because its traceback holds the tensors of the failed attempt, and tries again.
"""

import gc

import torch

__all__ = ["out_of_memory", "release_memory"]

_SAYINGS = ("not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch's CPU allocator and cuBLAS say; their errors have no class of their own."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out, on the GPU or beside it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _SAYINGS)


def release_memory() -> None:
    """Gives back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
