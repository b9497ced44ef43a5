"""Products through oneDNN: the formulas, their shapes, and where they are used."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tutelage.models import Critic, Policy, products, save_model
from tutelage.models.adapters import Adapter
from tutelage.models.products import (
    FilledFeedForward,
    OneDnnLinear,
    multiply,
    multiply_through_onednn,
    packed,
    product,
    rows_of_a_kernel,
)
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
    kernel = products.kernel

    def spy(x, weight, bias=None):
        # A matrix that repeats one number in memory is multiplied number by number.
        assert 0 not in (*x.stride(), *weight.stride())
        shapes.append(tuple(x.shape))
        return kernel(x, weight, bias)

    monkeypatch.setattr(products, "kernel", spy)
    monkeypatch.setattr(products, "_WORTH_A_KERNEL", 1)
    return shapes


def layer(inputs: int = 48, outputs: int = 80, *, bias: bool = True) -> OneDnnLinear:
    torch.manual_seed(0)
    return OneDnnLinear.of(nn.Linear(inputs, outputs, bias=bias))


def inputs(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.mark.parametrize("shape", [(7, 48), (3, 5, 48), (1, 48), (67, 48), (5, 83, 48)])
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


@pytest.mark.parametrize("rows", [6, 200])
def test_upstream_gradients_may_lie_in_any_order(rows, kernels, relative_gap):
    linear, x = layer(), inputs(rows, 48)
    upstream = torch.randn(80, rows).t()
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
    kernel = products.kernel
    monkeypatch.setattr(products, "kernel", lambda *args: calls.append(args) or kernel(*args))
    linear, x = layer(48, 96), torch.randn(rows, 48)
    # 512 rows are 2.4 million multiplications, 1,024 rows 4.7 million; 2^22 are 4.2 million.
    out = linear(x)
    assert bool(calls) is used
    assert used or torch.equal(out, nn.functional.linear(x, linear.weight, linear.bias))


def test_other_formats_are_torchs_own(kernels):
    linear, x = layer(), inputs(7, 48)
    with torch.autocast("cpu", torch.float16):
        half = linear(x)
        assert torch.equal(half, nn.functional.linear(x, linear.weight, linear.bias))
    linear.double()(x.double())
    assert kernels == []


def test_numbers_of_rows_that_get_a_kernel_are_few_and_near():
    sizes = [rows_of_a_kernel(rows) for rows in range(1 << 15)]
    assert sizes[:35] == [*range(33), 34, 34]
    assert all(rows <= size <= rows * 17 / 16 for rows, size in enumerate(sizes))
    assert all(rows_of_a_kernel(size) == size for size in sizes)
    assert [len({*sizes[1 << k : 1 << (k + 1)]}) for k in range(5, 15)] == [17] * 10


def test_rows_are_filled_up_to_such_a_number(kernels):
    layer()(inputs(67, 48)).sum().backward()
    # The product, the gradient of the input, and that of the weight, whose rows sum 68 products.
    assert kernels == [(68, 48), (68, 80), (80, 68)]
    kernels.clear()
    for rows in range(600, 1024):
        layer()(inputs(rows, 48))
    assert len(set(kernels)) == 14


@pytest.mark.parametrize(
    ("width", "outputs", "rows", "turned"),
    [(48, 80, 96, True), (48, 80, 88, False), (80, 48, 200, False), (264, 300, 600, False)],
)
def test_gradient_of_a_narrow_layer_is_turned_where_there_are_rows_enough(
    width, outputs, rows, turned, kernels
):
    layer(width, outputs)(inputs(rows, width).detach()).sum().backward()
    filled = rows_of_a_kernel(rows)
    assert kernels[-1] == ((width, filled) if turned else (outputs, filled))


def test_layers_that_read_one_tensor_share_its_filled_rows(monkeypatch, kernels):
    filled = []
    fill = products._filled
    monkeypatch.setattr(products, "_filled", lambda rows: filled.append(len(rows)) or fill(rows))
    linear, x = layer(), inputs(67, 48) * 1.0
    first = linear(x)
    assert torch.equal(linear(x), first)
    assert filled == [67]
    with torch.no_grad():
        x *= 2.0
    changed = linear(x)
    assert filled == [67, 67]
    assert torch.equal(changed, linear(x.detach().clone()))


def test_inference_mode_reads_what_was_changed_in_place(kernels):
    linear = layer()
    with torch.inference_mode():
        x = inputs(67, 48) * 1.0
        linear(x)
        x *= 2.0
        assert torch.equal(linear(x), linear(x.clone()))


@pytest.mark.parametrize("rows", [67, 68])
@pytest.mark.parametrize("is_leaf", [True, False])
def test_filled_rows_live_no_longer_than_their_tensor(kernels, rows, is_leaf):
    gc.disable()
    try:
        x = inputs(rows, 48) if is_leaf else inputs(rows, 48) * 1.0
        seen = weakref.ref(x)
        out = layer()(x)
        out.sum().backward()
        del x, out
        assert seen() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral", "gemma"])
def test_feed_forward_blocks_fill_their_rows_once(
    tiny_causal_lm, architecture, kernels, monkeypatch, relative_gap
):
    plain = tiny_causal_lm(architecture).model.layers[0].mlp
    block = copy.deepcopy(plain)
    tree = nn.ModuleDict({"mlp": block})
    multiply_through_onednn(tree)
    multiply_through_onednn(tree)
    assert isinstance(block, type(plain))
    assert [*block.state_dict()] == [*plain.state_dict()]
    filled = []
    fill = products._filled

    def spy(rows):
        result = fill(rows)
        filled.append(len(result) > len(rows))
        return result

    monkeypatch.setattr(products, "_filled", spy)
    x = inputs(5, 13, plain.gate_proj.in_features)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    out = block(x)
    assert sum(filled) == 1
    found = torch.autograd.grad(out, (x, *block.parameters()), upstream)
    assert sum(filled) == 2
    assert {65, 68} & {shape[0] for shape in kernels} == {68}
    expected = torch.autograd.grad(plain(x), (x, *plain.parameters()), upstream)
    for one, other in zip((out, *found), (plain(x), *expected), strict=True):
        assert relative_gap(one, other) < ROUNDING


def test_blocks_that_are_built_otherwise_are_left_alone(tiny_causal_lm):
    model = tiny_causal_lm("llama")
    mixed = model.model.layers[0].mlp
    mixed.gate = nn.Linear(4, 4)
    multiply_through_onednn(model)
    assert type(mixed) is type(tiny_causal_lm("llama").model.layers[0].mlp)
    assert all(isinstance(layer.mlp, FilledFeedForward) for layer in model.model.layers[1:])


@pytest.mark.parametrize("rows", [0, 7, 67])
@pytest.mark.parametrize("frozen", [False, True])
def test_bfloat16_gives_what_autocast_gives(rows, frozen, relative_gap):
    linear, x = layer(), inputs(rows, 48)
    plain = nn.Linear(48, 80)
    plain.load_state_dict(linear.state_dict())
    if frozen:
        linear, plain = RoundedLinear.of(linear), plain.requires_grad_(False)
    upstream = torch.randn(rows, 80, generator=torch.Generator().manual_seed(2)).bfloat16()
    found, expected = [], []
    for module, results in ((linear, found), (plain, expected)):
        x.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            out = module(x)
        out.backward(upstream)
        results += [out, x.grad, *(() if frozen else (module.weight.grad, module.bias.grad))]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype is other.dtype
        # bfloat16 keeps 8 bits: two roundings of one sum are up to 2^-8 apart.
        assert relative_gap(one, other) < 2**-8 if rows else one.shape == other.shape


def test_a_format_is_not_taken_for_another(kernels, relative_gap):
    linear, x = layer(), inputs(67, 48) * 1.0
    with torch.autocast("cpu", torch.bfloat16):
        linear(x)
    exact = x.double() @ linear.weight.double().t() + linear.bias.double()
    assert relative_gap(linear(x), exact) < ROUNDING


def test_vectors_and_no_rows_are_multiplied(relative_gap):
    linear, x = layer(), inputs(48)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x).shape == (80,)
        assert product(x.expand(0, 48), linear.weight).shape == (0, 80)
    assert multiply(x.detach().view(1, 1, 48), packed(linear.weight.detach())).shape == (1, 1, 80)


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
    small = [m for m in linear if m.weight.requires_grad]
    assert small
    assert all(type(m) is OneDnnLinear for m in small)
    assert adapter.merged().get_output_embeddings() is not None
