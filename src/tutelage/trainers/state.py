"""The state of a training loop as files: JSON, and safetensors for the tensors in it.

    {"learner": learner, "batches": batches, "engine": generator, "totals": {...}}
         └──state_dict of each──> nested dicts ──> state.json + tensors.safetensors

Both formats are data: reading them runs nothing. What is read back is equal bit for bit, also
numbers that are not finite.
"""

import errno
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tutelage.errors import CheckpointError

__all__ = ["Part", "RandomStates", "Resumable", "load_parts", "load_weights", "save_parts"]

_NUMBERS, _TENSORS = "state.json", "tensors.safetensors"
_TENSOR = "tensor"
"""The one key of a JSON object that stands for a tensor."""


@runtime_checkable
class Resumable(Protocol):
    """Something whose state can be taken and given back; every `nn.Module` is one."""

    def state_dict(self) -> Mapping[str, Any]:
        """Nested dicts with string keys, and lists, of numbers, strings, None and tensors."""
        ...

    def load_state_dict(self, state: Any) -> Any:
        """Inverse of `state_dict`."""
        ...


Part = Resumable | torch.Generator | dict[str, Any] | list[Any]
"""A part of a loop's state. Dicts and lists hold results so far and are filled in place."""


class RandomStates:
    """The generators that belong to nobody: Python's, NumPy's and torch's own."""

    def state_dict(self) -> dict[str, Any]:
        """Of this process, the GPUs' included."""
        version, numbers, gauss = random.getstate()
        _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        return {
            "python": [version, list(numbers), gauss],
            "numpy": [np.asarray(keys).tolist(), position, has_gauss, cached],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; without a GPU, the GPUs' states are ignored."""
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
        np.random.set_state(("MT19937", *state["numpy"]))
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"])


def save_parts(parts: Mapping[str, Part], folder: Path) -> None:
    """Writes the state of each part into `folder`.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    seen: dict[Any, str] = {}
    numbers = {name: _split(_state(part), name, tensors, seen) for name, part in parts.items()}
    (folder / _NUMBERS).write_text(json.dumps(numbers), encoding="utf-8")
    try:
        save_file({name: each.contiguous() for name, each in tensors.items()}, folder / _TENSORS)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        number = int(code.group(1)) if code else errno.EIO
        raise OSError(number, str(error), str(folder / _TENSORS)) from error


def load_parts(parts: Mapping[str, Part], folder: Path) -> None:
    """Gives each part the state that `save_parts` wrote.

    Raises:
        CheckpointError: a part has no state there, a state no part, or they do not fit.
    """
    numbers = json.loads((folder / _NUMBERS).read_text(encoding="utf-8"))
    tensors = load_file(folder / _TENSORS)
    missing, unknown = sorted(parts.keys() - numbers.keys()), sorted(numbers.keys() - parts.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{folder} lacks the state of {', '.join(missing) or 'nothing'} and has that of "
            f"{', '.join(unknown) or 'nothing'} besides: delete it to start from the beginning"
        )
    for name, part in parts.items():
        _load_part(name, part, numbers, tensors, folder)


def load_weights(parts: Mapping[str, Part], folder: Path) -> tuple[str, ...]:
    """Gives the models among the parts their weights, and the other parts nothing.

    Returns:
        The names of the models.

    Raises:
        CheckpointError: there is no model among the parts, or its weights are missing or do not
            fit.
    """
    models = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    numbers = json.loads((folder / _NUMBERS).read_text(encoding="utf-8"))
    missing = sorted(models.keys() - numbers.keys())
    if missing or not models:
        raise CheckpointError(
            f"{folder} holds no weights of {', '.join(missing) or 'a model'} to start from"
        )
    tensors = load_file(folder / _TENSORS)
    for name, model in models.items():
        _load_part(name, model, numbers, tensors, folder)
    return tuple(models)


def _load_part(
    name: str,
    part: Part,
    numbers: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    folder: Path,
) -> None:
    try:
        _restore(part, _join(numbers[name], tensors))
    except (CheckpointError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"the state of {name} in {folder} does not fit: {' '.join(str(error).split())}. "
            "Delete it to start from the beginning"
        ) from error


def _state(part: Part) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    return part.state_dict() if isinstance(part, Resumable) else part


def _restore(part: Part, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, Resumable):
        part.load_state_dict(state)
    elif isinstance(part, dict):
        part.clear()
        part.update(state)
    else:
        part[:] = state


def _split(value: Any, name: str, tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    """The value with a name in the place of each tensor, which goes into `tensors`.

    Tied weights are one tensor under several names, and are written once.
    """
    if isinstance(value, Tensor):
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
        known = seen.setdefault(place, name) if value.numel() else name
        if known == name:
            tensors[name] = value.detach()
        return {_TENSOR: known}
    if isinstance(value, Mapping):
        if set(value) == {_TENSOR} or not all(isinstance(key, str) for key in value):
            raise TypeError(f"the state of {name} has keys that cannot be written: {list(value)}")
        return {key: _split(item, f"{name}.{key}", tensors, seen) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_split(item, f"{name}.{i}", tensors, seen) for i, item in enumerate(value)]
    return value


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of `_split`."""
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            # In storage of its own: the file may be deleted while the tensor is in use.
            return tensors[value[_TENSOR]].clone()
        return {key: _join(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    return value
