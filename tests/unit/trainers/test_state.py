"""State on disk: what is read back is equal bit for bit, and what does not fit is refused."""

import errno
import json
import math
import os
import random
import resource
import signal

import numpy as np
import pytest
import torch
from torch import nn

from tutelage.errors import CheckpointError
from tutelage.trainers.state import RandomStates, load_parts, save_parts


class Holder:
    """Holds any state as it is."""

    def __init__(self, state=None):
        self.state = state

    def state_dict(self):
        return {"state": self.state}

    def load_state_dict(self, state):
        self.state = state["state"]


def test_numbers_come_back_exactly(tmp_path):
    odd = [0.1, 1e-308, 5e-324, -0.0, math.pi, math.inf, -math.inf, 2**70, True, None, "säule\n"]
    results = {"numbers": odd, "nested": {"deep": [{"a": 1}]}}
    save_parts({"results": results, "rows": [{"x": math.nan}]}, tmp_path)
    found, rows = {"stale": 1}, ["stale"]
    load_parts({"results": found, "rows": rows}, tmp_path)
    assert found == results
    assert str(found["numbers"][3]) == "-0.0"
    assert math.isnan(rows[0]["x"])


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_come_back_bit_for_bit(tmp_path, dtype):
    tensor = (torch.randn(3, 4) * 100).to(dtype)
    values = [tensor, tensor.t(), tensor[:, ::2], tensor.new_zeros(()), tensor.new_zeros(0, 5)]
    save_parts({"part": Holder(values)}, tmp_path)
    holder = Holder()
    load_parts({"part": holder}, tmp_path)
    for found, value in zip(holder.state, values, strict=True):
        assert found.dtype == dtype
        assert found.equal(value)
        assert found.is_contiguous()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.head = nn.Linear(3, 7, bias=False)
        self.head.weight = self.embedding.weight


def test_tied_weights_are_written_once_and_stay_tied(tmp_path):
    first, second = Tied(), Tied()
    save_parts({"model": first, "alias": first}, tmp_path)
    assert (tmp_path / "tensors.safetensors").stat().st_size < 2 * 4 * 21 + 200
    load_parts({"model": second, "alias": second}, tmp_path)
    assert second.head.weight.equal(first.head.weight)
    assert second.head.weight is second.embedding.weight


def test_generator_goes_on_where_it_was(tmp_path):
    source = torch.Generator().manual_seed(3)
    torch.randn(5, generator=source)
    save_parts({"source": source}, tmp_path)
    expected = torch.randn(5, generator=source)
    again = torch.Generator()
    load_parts({"source": again}, tmp_path)
    assert torch.randn(5, generator=again).equal(expected)


def draws():
    return [random.random(), random.gauss(0, 1), np.random.normal(), torch.randn(2).tolist()]


def test_generators_of_the_process_go_on_where_they_were(tmp_path):
    draws()  # leaves half a pair of normal numbers waiting in Python's and in NumPy's generator
    save_parts({"random": RandomStates()}, tmp_path)
    expected = draws()
    assert draws() != expected
    load_parts({"random": RandomStates()}, tmp_path)
    assert draws() == expected


def test_what_was_read_does_not_depend_on_the_file(tmp_path):
    save_parts({"part": Holder(torch.ones(3))}, tmp_path)
    holder = Holder()
    load_parts({"part": holder}, tmp_path)
    (tmp_path / "tensors.safetensors").write_bytes(b"\xff" * 100)
    assert holder.state.equal(torch.ones(3))


def test_part_too_few_or_too_many_is_refused(tmp_path):
    save_parts({"model": Tied(), "generator": torch.Generator()}, tmp_path)
    with pytest.raises(CheckpointError, match="lacks the state of learner and has that of gener"):
        load_parts({"model": Tied(), "learner": Holder()}, tmp_path)


@pytest.mark.parametrize("other", [nn.Linear(3, 8), nn.Linear(2, 2, bias=False), Holder()])
def test_state_of_another_shape_is_refused_by_name(tmp_path, other):
    save_parts({"model": nn.Linear(2, 2)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"the state of model in .* does not fit"):
        load_parts({"model": other}, tmp_path)


@pytest.mark.parametrize("state", [{1: "integer key"}, {"tensor": 1}])
def test_state_that_could_not_be_told_apart_is_refused(tmp_path, state):
    with pytest.raises(TypeError, match="keys that cannot be written"):
        save_parts({"part": Holder(state)}, tmp_path)


def test_object_that_is_no_data_is_refused(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_parts({"part": Holder(object())}, tmp_path)


def test_only_data_formats_are_written(tmp_path):
    save_parts({"model": Tied(), "random": RandomStates()}, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["state.json", "tensors.safetensors"]
    json.loads((tmp_path / "state.json").read_text())


def test_full_disk_is_an_error_of_the_operating_system(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match=r"tensors\.safetensors") as caught:
            save_parts({"part": Holder(torch.ones(1000))}, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert caught.value.errno == errno.EFBIG
