import threading
import time

import pytest
import torch

from tutelage.distributed import Cores


def test_results_keep_the_order_of_the_items():
    delays = [0.03, 0.0, 0.02, 0.01]

    def late(i: int) -> int:
        time.sleep(delays[i])
        return i * i

    assert Cores(3).map(late, range(4)) == [0, 1, 4, 9]


def test_as_many_items_as_cores_are_under_way_together():
    # Each waits for the other: one after the other they would time out.
    meeting = threading.Barrier(2, timeout=20)
    assert sorted(Cores(2).map(lambda _: meeting.wait(), range(2))) == [0, 1]


def test_one_core_works_in_the_calling_thread():
    assert Cores().map(lambda _: threading.get_ident(), "ab") == [threading.get_ident()] * 2


def test_the_number_of_cores_changes_no_bit():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 64, generator=generator, requires_grad=True)
    batches = [torch.randn(n, 64, generator=generator) for n in (3, 17, 5, 29, 11)]

    def gradient(batch: torch.Tensor) -> torch.Tensor:
        loss = (batch @ weight).tanh().square().mean()
        return torch.autograd.grad(loss, weight)[0]

    alone, together = Cores(1).map(gradient, batches), Cores(3).map(gradient, batches)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("records", [True, False])
def test_gradients_are_recorded_as_in_the_calling_thread(records):
    weight = torch.ones(2, requires_grad=True)
    with torch.set_grad_enabled(records):
        results = Cores(2).map(lambda factor: factor * weight, (2.0, 3.0))
    assert [result.requires_grad for result in results] == [records, records]


def test_operations_of_a_worker_use_one_thread():
    assert Cores(2).map(lambda _: torch.get_num_threads(), range(4)) == [1] * 4


def test_an_exception_arrives_after_what_is_under_way():
    under_way, done = threading.Event(), []

    def work(name: str) -> None:
        if name == "fails":
            under_way.wait(20)
            raise KeyError(name)
        under_way.set()
        time.sleep(0.05)
        done.append(name)

    with pytest.raises(KeyError, match="fails"):
        Cores(2).map(work, ["fails", "finishes"])
    assert done == ["finishes"]


def test_a_pool_is_usable_after_an_exception():
    cores = Cores(2)
    with pytest.raises(ZeroDivisionError):
        cores.map(lambda x: 1 // x, (0, 1))
    assert cores.map(lambda x: 1 // x, (1, 1)) == [1, 1]


def test_less_than_one_core_is_refused():
    with pytest.raises(ValueError, match="found 0 cores"):
        Cores(0)
