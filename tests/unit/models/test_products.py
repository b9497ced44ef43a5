"""Float32 products through oneDNN: the formulas, and where they are used."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tutelage.models import Critic, Policy, products, save_model
from tutelage.models.adapters import Adapter
from tutelage.models.products import OneDnnLinear, multiply, multiply_through_onednn, packed
from tutelage.models.rounded import RoundedLinear

ROUNDING = 1e-6
"""Relative; sums of some hundred float32 products are a few 1e-7 off."""

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


@pytest.fixture
def kernels(monkeypatch) -> list[tuple[int, ...]]:
    """Shapes of the inputs that oneDNN was given by layers, call by call; all sizes are its own."""
    shapes = []

    def spy(x, weight, bias=None):
        shapes.append(tuple(x.shape))
        return multiply(x, weight, bias)

    monkeypatch.setattr(products, "multiply", spy)
    monkeypatch.setattr(products, "_WORTH_A_KERNEL", 1)
    return shapes


def layer(inputs: int = 48, outputs: int = 80, *, bias: bool = True) -> OneDnnLinear:
    torch.manual_seed(0)
    return OneDnnLinear.of(nn.Linear(inputs, outputs, bias=bias))


def inputs(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.mark.parametrize("shape", [(7, 48), (3, 5, 48), (1, 48)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [16, 80])
def test_product_and_gradients_are_the_formulas(kernels, shape, bias, outputs, relative_gap):
    linear, x = layer(outputs=outputs, bias=bias), inputs(*shape)
    exact = copy.deepcopy(linear).double()
    exact_x = x.detach().double().requires_grad_()
    out = linear(x)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    out.backward(upstream)
    expected = exact_x @ exact.weight.t() + (exact.bias if bias else 0.0)
    expected.backward(upstream.double())
    assert relative_gap(out, expected) < ROUNDING
    assert relative_gap(x.grad, exact_x.grad) < ROUNDING
    assert relative_gap(linear.weight.grad, exact.weight.grad) < ROUNDING
    assert linear.weight.grad.is_contiguous()
    assert not bias or relative_gap(linear.bias.grad, exact.bias.grad) < ROUNDING
    assert len(kernels) == 3


def test_gradients_that_nobody_asked_for_are_not_computed(kernels):
    linear = layer().requires_grad_(False)
    linear(inputs(7, 48)).sum().backward()
    assert len(kernels) == 2
    assert linear.weight.grad is None
    kernels.clear()
    first = layer()
    first(inputs(7, 48).detach()).sum().backward()
    assert len(kernels) == 2
    assert first.weight.grad is not None
    kernels.clear()
    with torch.no_grad():
        layer()(inputs(7, 48))
    assert len(kernels) == 1


def test_upstream_gradients_may_lie_in_any_order(kernels, relative_gap):
    linear, x = layer(), inputs(6, 48)
    upstream = torch.randn(80, 6).t()
    found = torch.autograd.grad(linear(x), (x, linear.weight), upstream)
    again = torch.autograd.grad(linear(x), (x, linear.weight), upstream.contiguous())
    for one, other in zip(found, again, strict=True):
        assert relative_gap(one, other) < ROUNDING
    # As their weights do: an optimiser may take that for granted.
    assert found[1].is_contiguous()


def test_packed_and_transposed_weights_give_the_same_product(relative_gap):
    x, weight = torch.randn(40, 48), torch.randn(80, 48)
    expected = x.double() @ weight.double().t()
    assert relative_gap(multiply(x, packed(weight)), expected) < ROUNDING
    assert relative_gap(multiply(x, weight.t().contiguous().t()), expected) < ROUNDING


def test_not_a_number_spreads_as_in_any_product(kernels):
    x = torch.randn(4, 48)
    x[2, 3] = torch.nan
    assert layer()(x).isnan().any(1).tolist() == [False, False, True, False]


@pytest.mark.parametrize(("rows", "used"), [(1 << 9, False), (1 << 10, True)])
def test_small_products_are_torchs_own(monkeypatch, rows, used):
    calls = []
    monkeypatch.setattr(products, "multiply", lambda *args: calls.append(args) or multiply(*args))
    linear, x = layer(48, 96), torch.randn(rows, 48)
    # 512 rows are 2.4 million multiplications, 1,024 rows 4.7 million; 2^22 are 4.2 million.
    out = linear(x)
    assert bool(calls) is used
    assert used or torch.equal(out, nn.functional.linear(x, linear.weight, linear.bias))


def test_other_formats_are_torchs_own(kernels):
    linear, x = layer(), inputs(7, 48)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x).dtype is torch.bfloat16
    linear.double()(x.double())
    assert kernels == []


def test_a_repeated_forward_pass_gives_the_same_gradients(kernels):
    linear, x = layer(), inputs(7, 48)
    linear(x).square().sum().backward()
    expected, linear.weight.grad = linear.weight.grad, None
    checkpoint(linear, x, use_reentrant=False).square().sum().backward()
    assert torch.equal(linear.weight.grad, expected)


def test_models_keep_their_parameters_and_names(tiny_causal_lm):
    model = tiny_causal_lm("llama", tie_word_embeddings=True)
    before = dict(model.named_parameters())
    multiply_through_onednn(model)
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert linear
    assert all(type(m) is OneDnnLinear for m in linear)
    model.eval()
    multiply_through_onednn(model)
    assert not any(m.training for m in model.modules())


def test_policy_critic_and_their_copies_multiply_so(tiny_causal_lm, kernels):
    policy = Policy(tiny_causal_lm("llama"))
    critic, reference = Critic.from_policy(policy.model), policy.frozen_copy()
    tokens = torch.tensor([[3, 4, 5, 6]])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    linear = {
        part: sum(isinstance(m, nn.Linear) for m in part.model.modules())
        for part in (policy.backbone, critic.backbone, reference.backbone)
    }
    heads = {policy.backbone: 1, critic.backbone: 0, reference.backbone: 1}
    for part, count in linear.items():
        part(tokens, mask)  # Asks the model some questions when it is first used.
        kernels.clear()
        part(tokens, mask)
        assert len(kernels) == count - heads[part]


def test_a_model_agrees_with_transformers_own_and_is_saved_as_one(
    tiny_causal_lm, tiny_tokenizer, kernels, tmp_path, relative_gap
):
    plain = tiny_causal_lm("llama")
    model = copy.deepcopy(plain)
    Policy(model)
    kernels.clear()
    tokens = torch.randint(3, 30, (4, 20), generator=torch.Generator().manual_seed(3))
    assert relative_gap(model(tokens).logits, plain(tokens).logits) < ROUNDING
    assert kernels
    save_model(model, tiny_tokenizer, tmp_path)
    again = type(plain).from_pretrained(tmp_path)
    assert {type(m) for m in again.modules() if isinstance(m, nn.Linear)} == {nn.Linear}
    states = plain.state_dict()
    assert all(torch.equal(w, states[name]) for name, w in again.state_dict().items())


def test_adapters_take_such_layers_and_rounding_finds_them(tiny_causal_lm, kernels):
    pytest.importorskip("peft")
    model = tiny_causal_lm("llama")
    Policy(model)
    adapter = Adapter(model, rank=4, compute=torch.bfloat16)
    linear = [m for m in model.model.modules() if isinstance(m, nn.Linear)]
    frozen = [m for m in linear if not m.weight.requires_grad]
    assert frozen
    assert all(type(m) is RoundedLinear for m in frozen)
    assert adapter.merged().get_output_embeddings() is not None
