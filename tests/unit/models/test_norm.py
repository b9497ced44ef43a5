"""The norm against autograd's own, and which norms are taken for it."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from tutelage.models.norm import (
    RootMeanSquareNorm,
    computes_root_mean_square,
    keep_less_of_norms,
)
from tutelage.native import calls


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def operations(request, monkeypatch):
    """Of both kinds, wherever there is a compiler."""
    if request.param == "torch":
        monkeypatch.setattr(calls, "library", lambda: None)
    return request.param


def ours(width: int, kind: type[nn.Module] = LlamaRMSNorm) -> nn.Module:
    model = nn.Sequential(kind(width, 1e-3))
    nn.init.normal_(model[0].weight, 1.0, 0.3)
    keep_less_of_norms(model)
    assert isinstance(model[0], RootMeanSquareNorm)
    return model[0]


def of_the_formula(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-3) * weight


@pytest.mark.parametrize("shape", [(1, 1), (5, 24), (3, 67, 100), (2, 64, 576)])
def test_numbers_and_gradients_are_those_of_the_formula(shape):
    torch.manual_seed(0)
    norm = ours(shape[-1])
    x, upstream = torch.randn(shape, requires_grad=True), torch.randn(shape)
    x.data[0] *= 30.0
    out = norm(x)
    found = torch.autograd.grad(out, (x, norm.weight), upstream)
    exact = x.detach().double().requires_grad_(), norm.weight.detach().double().requires_grad_()
    expected = of_the_formula(*exact)
    torch.testing.assert_close(out.double(), expected, rtol=2e-6, atol=2e-6)
    gradients = torch.autograd.grad(expected, exact, upstream.double())
    # A weight's gradient is a sum over all rows, of terms that cancel.
    for one, other, rows in zip(found, gradients, (1, x[..., 0].numel()), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=2e-6 * rows**0.5 + 1e-6)


def test_what_lies_in_another_order_is_read_all_the_same():
    norm, x = ours(8), torch.randn(6, 3, 8).transpose(0, 1).requires_grad_()
    expected = torch.autograd.grad(of_the_formula(x, norm.weight).pow(3).sum(), x)
    found = torch.autograd.grad(norm(x).pow(3).sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_one_of_both_may_be_frozen(frozen):
    norm, x = ours(8), torch.randn(5, 8, requires_grad=True)
    tensors = {"x": x, "weight": norm.weight}
    (other,) = (tensor for name, tensor in tensors.items() if name != frozen)
    expected = torch.autograd.grad(norm(x).pow(2).sum(), other)
    tensors[frozen].requires_grad_(False)
    assert torch.autograd.grad(norm(x).pow(2).sum(), other)[0].equal(expected[0])


def test_only_what_is_read_and_a_number_a_row_are_kept():
    norm, x, kept = ours(64), torch.randn(10, 64, requires_grad=True), []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        norm(x)
    assert {tensor.data_ptr() for tensor in kept} >= {x.data_ptr(), norm.weight.data_ptr()}
    assert sorted(tensor.numel() for tensor in kept) == [10, 64, 640]


def test_other_formats_are_the_norms_own():
    norm, x = ours(8), torch.randn(5, 8).bfloat16()
    assert norm(x).equal(LlamaRMSNorm.forward(norm, x))


def test_threads_change_nothing(operations):
    if operations == "torch":
        pytest.skip("torch's own sums depend on the number of threads")
    torch.manual_seed(0)
    norm, x, upstream = ours(100), torch.randn(500, 100), torch.randn(500, 100)
    x.requires_grad_()
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            out = norm(x)
            found.append((out, *torch.autograd.grad(out, (x, norm.weight), upstream)))
    finally:
        torch.set_num_threads(before)
    assert all(
        one.equal(other) for more in found[1:] for one, other in zip(found[0], more, strict=True)
    )


class _Renamed(LlamaRMSNorm):
    def forward(self, x):
        return super().forward(x) + 1.0


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        (LlamaRMSNorm(8), True),
        (Qwen3RMSNorm(8, 0.1), True),
        (nn.RMSNorm(8, 0.1), False),  # its width is fixed
        (GemmaRMSNorm(8), False),  # its weight lies around 0
        (nn.LayerNorm(8), False),
        (_Renamed(8), False),
        (nn.Linear(8, 8, bias=False), False),
        (nn.Identity(), False),
    ],
)
def test_norms_are_told_apart_by_what_they_compute(norm, expected):
    assert computes_root_mean_square(norm) is expected
    with torch.device("meta"):
        assert computes_root_mean_square(norm.to("meta")) is expected


def test_a_model_keeps_its_weights_and_names(tiny_causal_lm):
    model = tiny_causal_lm()
    names, weights = [*model.state_dict()], [*model.parameters()]
    keep_less_of_norms(model)
    classes = [type(module) for module in model.modules()]
    keep_less_of_norms(model)
    assert [type(module) for module in model.modules()] == classes
    assert [*model.state_dict()] == names
    assert all(a is b for a, b in zip(model.parameters(), weights, strict=True))
    assert sum(isinstance(module, RootMeanSquareNorm) for module in model.modules()) >= 3
