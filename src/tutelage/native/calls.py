"""The library's functions are given addresses: what is not as they read it is refused here."""

import ctypes

import torch
from torch import Tensor

from tutelage.native.compiling import library

__all__ = ["address", "address_of_rows", "available", "call"]

_FORMATS = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_ADDRESS, _COUNT = ctypes.c_void_p, ctypes.c_int64
_FLOAT, _THREADS = ctypes.c_float, ctypes.c_int
_ARGUMENTS = {
    "add_and_normalise": (*3 * [_ADDRESS], _FLOAT, _ADDRESS, *2 * [_COUNT], _THREADS),
    "gate": (*2 * [_ADDRESS], *2 * [_COUNT], _THREADS),
    "read": (
        *5 * [_ADDRESS],
        _FLOAT,
        *3 * [_COUNT],
        *4 * [_ADDRESS],
        _COUNT,
        _ADDRESS,
        *4 * [_COUNT],
        _FLOAT,
        _THREADS,
    ),
    "swiglu": (*3 * [_ADDRESS], _COUNT, _THREADS),
    "swiglu_backward": (*5 * [_ADDRESS], _COUNT, _THREADS),
    "rotate": (*4 * [_ADDRESS], *12 * [_COUNT], _THREADS),
    "normalise": (*2 * [_ADDRESS], _FLOAT, *2 * [_ADDRESS], *2 * [_COUNT], _THREADS),
    "normalise_backward": (*6 * [_ADDRESS], *2 * [_COUNT], _THREADS),
    "draw": (*4 * [_ADDRESS], *2 * [_COUNT], _FLOAT, _THREADS),
}


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is a library for tensors of this kind."""
    return device.type == "cpu" and dtype in _FORMATS and library() is not None


def call(name: str, dtype: torch.dtype, *arguments: float | None) -> bool | None:
    """With as many threads as torch's own operations would have here."""
    found = library()
    assert found is not None, "`available` says so first"
    function = getattr(found, f"{name}_{_FORMATS[dtype]}")
    if function.argtypes is None:
        function.restype = ctypes.c_bool if name == "read" else None
        function.argtypes = _ARGUMENTS[name]
    done: bool | None = function(*arguments, torch.get_num_threads())
    return done


def address(tensor: Tensor, dtype: torch.dtype, *shape: int) -> int:
    """Where its numbers lie, one behind the other.

    Raises:
        ValueError: it is of another device, format, shape or order.
    """
    return _address(tensor, dtype, shape, tensor.is_contiguous())


def address_of_rows(tensor: Tensor, dtype: torch.dtype, *shape: int) -> int:
    """Where its first number lies; those of its last dimension follow one another.

    Raises:
        ValueError: as for `address`.
    """
    return _address(tensor, dtype, shape, tensor.stride(-1) == 1)


def _address(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...], dense: bool) -> int:
    fits = tensor.dtype is dtype and tensor.shape == shape and tensor.device.type == "cpu"
    if not fits or not dense:
        raise ValueError(
            f"found {tensor.dtype} of shape {tuple(tensor.shape)} and strides {tensor.stride()} on "
            f"{tensor.device}, expected dense {dtype} of shape {shape} on a CPU"
        )
    return tensor.data_ptr()
