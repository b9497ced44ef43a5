"""SwiGLU against autograd's own, and which blocks are taken for it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from tutelage.models.feed_forward import SwiGLU, computes_swiglu, swiglu
from tutelage.models.products import multiply_through_onednn
from tutelage.native import calls


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def operations(request, monkeypatch):
    """Of both kinds, wherever there is a compiler."""
    if request.param == "torch":
        monkeypatch.setattr(calls, "library", lambda: None)
    return request.param


def numbers(seed: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(67, 24, generator=generator).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_are_those_of_autograd(dtype, operations):
    """Bit for bit in torch; what is compiled rounds less often, and is nearer to the formula."""
    gate, up = numbers(0, dtype), numbers(1, dtype)
    upstream = numbers(2, dtype).detach()

    def all_of(combine, *factors):
        product = combine(*factors)
        return [product, *torch.autograd.grad(product, factors, upstream.to(product.dtype))]

    plain = all_of(lambda g, u: functional.silu(g) * u, gate, up)
    found = all_of(swiglu, gate, up)
    if operations == "torch":
        assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))
    exact = all_of(lambda g, u: functional.silu(g) * u, gate.double(), up.double())
    tolerance = 1e-6 if dtype is torch.float32 else 2**-7
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)


def test_gradient_is_that_of_the_formula():
    gate, up = numbers(0, torch.float64), numbers(1, torch.float64)
    assert torch.autograd.gradcheck(swiglu, (gate[:5, :4], up[:5, :4]))


def test_upstream_gradient_is_left_as_it_was():
    gate, up, upstream = (numbers(seed, torch.float32) for seed in range(3))
    before = upstream.detach().clone()
    torch.autograd.grad(swiglu(gate, up), (gate, up), upstream)
    assert torch.equal(upstream, before)


@pytest.mark.parametrize("frozen", [0, 1])
def test_one_of_both_may_be_frozen(frozen):
    factors = [numbers(0, torch.float32), numbers(1, torch.float32)]
    expected = torch.autograd.grad(swiglu(*factors).sum(), factors)[1 - frozen]
    factors[frozen].requires_grad_(False)
    (found,) = torch.autograd.grad(swiglu(*factors).sum(), factors[1 - frozen])
    assert torch.equal(found, expected)


def test_the_wider_of_two_formats_is_kept():
    gate, up = numbers(0, torch.bfloat16), numbers(1, torch.float32)
    assert swiglu(gate, up).dtype is torch.float32


def test_only_gate_and_up_are_kept():
    kept = []
    gate, up = numbers(0, torch.float32), numbers(1, torch.float32)

    def keep(tensor):
        kept.append(tensor.data_ptr())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        swiglu(gate, up)
    assert kept == [gate.data_ptr(), up.data_ptr()]


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("llama", True),
        ("qwen2", True),
        ("qwen3", True),
        ("mistral", True),
        ("gemma", False),  # GELU
    ],
)
def test_families_are_told_apart(tiny_causal_lm, architecture, expected):
    model = tiny_causal_lm(architecture)
    block = model.model.layers[0].mlp
    assert computes_swiglu(block) is expected
    multiply_through_onednn(model)
    assert isinstance(block, SwiGLU) is expected


def llama_like(forward) -> nn.Module:
    block = type("Block", (nn.Module,), {"forward": forward})()
    block.act_fn = nn.SiLU()
    return block


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: self.down_proj(self.act_fn(self.gate_proj(x)) + self.up_proj(x)),
        lambda self, x: self.down_proj(self.act_fn(self.up_proj(x)) * self.gate_proj(x)),
        lambda self, x: self.act_fn(self.gate_proj(x)) * self.up_proj(x),
        lambda self, x: self.scale * self.down_proj(self.act_fn(self.gate_proj(x))),
        lambda self, x, router: x,
    ],
    ids=["sum", "turned round", "nothing behind", "a part of its own", "another argument"],
)
def test_blocks_of_another_form_are_not_taken(forward):
    assert not computes_swiglu(llama_like(forward))


def test_a_block_without_an_activation_is_not_taken():
    assert not computes_swiglu(nn.Linear(2, 2))
    assert not computes_swiglu(SimpleNamespace())
