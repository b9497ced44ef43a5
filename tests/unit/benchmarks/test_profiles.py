import pytest
import torch
from benchmarks.profiles import (
    _compiled_operations_named,
    _profiled,
    counted_operations,
    seconds_by_kind,
    seconds_by_operator,
)
from torch import nn

from tutelage.models.products import multiply, packed
from tutelage.native import decoding
from tutelage.native.compiling import library

SECOND = 10**9


def test_each_operator_is_counted_without_those_it_called():
    events = [
        (1, 0, 10 * SECOND, "aten::linear"),
        (1, 0, 8 * SECOND, "aten::addmm"),
        (1, 8 * SECOND, 9 * SECOND, "aten::copy_"),
        (1, 10 * SECOND, 12 * SECOND, "aten::_scaled_dot_product_attention"),
        # Another thread at the same time calls for itself.
        (2, 1 * SECOND, 4 * SECOND, "aten::_fused_adamw_"),
    ]
    by_operator = seconds_by_operator(reversed(events))
    assert by_operator["aten::linear"] == pytest.approx(1.0)
    spent = seconds_by_kind(by_operator)
    assert spent["products"] + spent["the rest"] == pytest.approx(10.0)
    assert spent["attention"] == pytest.approx(2.0)
    assert spent["optimiser"] == pytest.approx(3.0)


def test_a_product_inside_the_rest_is_a_product():
    events = [(1, 0, 5 * SECOND, "MulBackward0"), (1, SECOND, 3 * SECOND, "aten::mm")]
    spent = seconds_by_kind(seconds_by_operator(events))
    assert (spent["products"], spent["the rest"]) == (2.0, 3.0)


def test_operations_are_those_of_all_products_but_attentions():
    """By hand: 2 M K N each, and nothing for two products of heads."""
    x, weight = torch.zeros(3, 5, 16), torch.zeros(8, 16)

    def work() -> None:
        nn.functional.linear(x, weight)
        multiply(x, weight)
        multiply(x, packed(weight))
        multiply(torch.zeros(15, 8), weight.t())
        torch.bmm(x, x.transpose(1, 2))

    assert counted_operations(work) == 4 * 2 * 15 * 16 * 8


@pytest.mark.skipif(library() is None, reason="no C++ compiler")
def test_compiled_operations_are_seen():
    class Decoding:
        def run(self) -> None:
            heads, time = decoding.Heads(1, 1, 16), 64
            stores = [torch.zeros(4, 1, time, 16) for _ in range(2)]
            rotation = torch.ones(4, time, 16), torch.zeros(4, time, 16)
            place, start = torch.arange(4), torch.zeros(4, dtype=torch.long)
            joined = torch.randn(4, time, 48)
            decoding.read(joined, rotation, heads, *stores, place, start, 0, 1.0)
            decoding.gate(torch.randn(4, 32))

    call = decoding.call
    by_operator = _profiled(Decoding())
    assert seconds_by_kind(by_operator)["attention"] == by_operator["compiled::read"] > 0
    assert by_operator["compiled::gate"] > 0
    assert decoding.call is call
    with pytest.raises(ZeroDivisionError), _compiled_operations_named():
        _ = 1 / 0
    assert decoding.call is call
