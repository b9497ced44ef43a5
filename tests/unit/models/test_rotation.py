"""The rotation against the formula in complex numbers, and which models take it."""

import importlib

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.cohere.modeling_cohere import apply_rotary_pos_emb as interleaved
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tutelage.models.rotation import Rotation, computes_rotation, rotate_in_one_pass
from tutelage.native import calls
from tutelage.native.compiling import library


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def operations(request, monkeypatch):
    """Of both kinds, wherever there is a compiler."""
    if request.param == "torch":
        monkeypatch.setattr(calls, "library", lambda: None)
    elif library() is None:
        pytest.skip("there is no compiler")
    return request.param


def angles(rows: int, time: int, size: int) -> tuple[Tensor, Tensor]:
    turns = torch.randn(rows, time, size // 2).repeat(1, 1, 2)
    return turns.cos(), turns.sin()


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(x_1 + i x_2) e^(i angle)."""
    half = x.shape[-1] // 2
    numbers = torch.complex(x[..., :half].double(), x[..., half:].double())
    numbers = numbers * torch.complex(cos[..., :half].double(), sin[..., :half].double())[:, None]
    return torch.cat((numbers.real, numbers.imag), -1)


def laid_out(rows: int, heads: int, time: int, size: int, dtype: torch.dtype, order: str) -> Tensor:
    if order == "tokens":
        x = torch.randn(rows, time, heads, size).transpose(1, 2)
    elif order == "joined":
        x = torch.randn(rows, time, heads + 2, size)[:, :, :heads].transpose(1, 2)
    else:
        x = torch.randn(rows, heads, time, size)
    return x.to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", ["tokens", "joined", "heads"])
@pytest.mark.parametrize("size", [2, 24, 64, 80])
@pytest.mark.parametrize("rows_of_angles", [1, 3])
def test_pairs_are_turned_by_their_angles_and_gradients_back(dtype, order, size, rows_of_angles):
    torch.manual_seed(0)
    query, key = (laid_out(3, heads, 5, size, dtype, order) for heads in (4, 2))
    cos, sin = angles(rows_of_angles, 5, size)
    found = Rotation(apply_rotary_pos_emb)(query, key, cos, sin)
    tolerance = 1e-6 if dtype is torch.float32 else 2**-7
    for x, out in zip((query, key), found, strict=True):
        torch.testing.assert_close(
            out.double(), turned(x, cos, sin), rtol=tolerance, atol=tolerance
        )
        upstream = torch.randn(out.shape, dtype=out.dtype)
        # What turns back is a turn by the angle with the other sign.
        torch.testing.assert_close(
            torch.autograd.grad(out, x, upstream)[0].double(),
            turned(upstream, cos, -sin),
            rtol=tolerance,
            atol=tolerance,
        )


def test_gradient_is_that_of_the_operation_before():
    """Whatever the angles: here those of both halves differ."""
    torch.manual_seed(0)
    query, key = (laid_out(2, heads, 5, 24, torch.float32, "tokens") for heads in (4, 2))
    cos, sin = torch.randn(2, 5, 24), torch.randn(2, 5, 24)

    def gradients(rotate):
        one, other = rotate(query, key, cos, sin)
        return torch.autograd.grad(one.pow(3).sum() + other.pow(3).sum(), (query, key))

    expected = gradients(apply_rotary_pos_emb)
    for one, other in zip(gradients(Rotation(apply_rotary_pos_emb)), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_a_gradient_in_any_order_is_turned_back():
    x, (cos, sin) = torch.randn(1, 2, 3, 8, requires_grad=True), angles(1, 3, 8)
    out, _ = Rotation(apply_rotary_pos_emb)(x, x, cos, sin)
    for upstream in (torch.ones(()).expand(out.shape), torch.randn(8, 1, 2, 3).permute(1, 2, 3, 0)):
        (found,) = torch.autograd.grad(out, x, upstream, retain_graph=True)
        torch.testing.assert_close(found.double(), turned(upstream, cos, -sin))


@pytest.mark.parametrize(
    ("query", "cos", "more"),
    [
        (torch.randn(2, 3, 4, 8), angles(2, 4, 8)[0], (1,)),
        (torch.randn(2, 3, 4, 8), angles(2, 4, 8)[0].double(), ()),
        (torch.randn(2, 3, 4, 8).double(), angles(2, 4, 8)[0], ()),
        (torch.randn(2, 3, 4, 8), torch.randn(2, 1, 8), ()),
    ],
)
def test_what_is_asked_otherwise_is_left_as_it_was(query, cos, more):
    found = Rotation(apply_rotary_pos_emb)(query, query, cos, cos, *more)
    expected = apply_rotary_pos_emb(query, query, cos, cos, *more)
    assert all(one.equal(other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("rotate", "expected"),
    [
        (apply_rotary_pos_emb, True),
        (interleaved, False),
        (lambda query, key, cos, sin: (query, key), False),
        (lambda query, key, cos, sin: apply_rotary_pos_emb(query, key, cos, -sin), False),
        (lambda query: query, False),
        (None, False),
    ],
)
def test_rotations_are_told_apart_by_what_they_compute(rotate, expected):
    assert computes_rotation(rotate) is expected


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gpt_neox"])
def test_models_of_a_family_turn_as_before(family, operations):
    sizes = {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    if family == "gpt_neox":
        del sizes["num_key_value_heads"], sizes["head_dim"]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes))
    names, ids = [*model.state_dict()], torch.randint(0, 40, (2, 7))
    expected = model(ids).logits
    before = importlib.import_module(type(model).__module__).apply_rotary_pos_emb

    rotate_in_one_pass(model)
    changed = [type(module) for module in model.modules()]
    rotate_in_one_pass(model)
    assert [type(module) for module in model.modules()] == changed
    used = [own.forward.__globals__["apply_rotary_pos_emb"] for own in changed if _rotates(own)]
    assert [type(each) for each in used] == 2 * [Rotation]
    assert importlib.import_module(type(model).__module__).apply_rotary_pos_emb is before
    assert [*model.state_dict()] == names
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-5, atol=1e-5)
    # GPT-NeoX turns a part of each head.
    if operations == "compiled" and family != "gpt_neox":
        assert "_Rotated" in _operations(model(ids).logits.sum().grad_fn)


def _rotates(own: type[torch.nn.Module]) -> bool:
    return "apply_rotary_pos_emb" in getattr(own.forward, "__code__", own).co_names


def _operations(function, found=None) -> str:
    found = set() if found is None else found
    if function is not None and function not in found:
        found.add(function)
        for following, _ in function.next_functions:
            _operations(following, found)
    return " ".join(type(each).__name__ for each in found)
