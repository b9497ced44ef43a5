"""Compiled operations say what their formulas say, and refuse what they would misread."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.native import decoding
from tutelage.native.calls import available
from tutelage.native.compiling import library
from tutelage.native.decoding import SIZES, Heads, Norm

pytestmark = pytest.mark.skipif(library() is None, reason="no C++ compiler")

FORMATS = [torch.float32, torch.bfloat16]
TOLERANCE = {
    torch.float32: {"rtol": 2e-6, "atol": 2e-6},
    torch.bfloat16: {"rtol": 8e-3, "atol": 1e-5},
}
"""A result is rounded once: to 24 bits and to 8."""


def rounded(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(*shape).to(dtype)


def normalised(x: Tensor, norm: Norm) -> Tensor:
    x = x.double()
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.epsilon)
    return x * scale * norm.weight.double()


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("width", [1, 15, 16, 100, 576])
@pytest.mark.parametrize("adds", [True, False])
def test_the_sum_is_written_over_and_its_norm_given(dtype, width, adds):
    torch.manual_seed(width)
    x, added = torch.randn(5, width), rounded(dtype, 5, width) if adds else None
    norm = Norm(torch.randn(width), 1e-3)
    expected = x if added is None else x + added.float()
    out = decoding.add_and_normalise(x, added, norm, dtype)
    torch.testing.assert_close(x, expected, rtol=0, atol=0)
    assert out.dtype is dtype
    torch.testing.assert_close(out.double(), normalised(expected, norm), **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("width", [1, 16, 33])
def test_the_gate_is_silu_of_one_half_times_the_other(dtype, width):
    torch.manual_seed(width)
    both = rounded(dtype, 7, 2 * width) * 8
    gate, up = both.double().chunk(2, -1)
    found = decoding.gate(both)
    torch.testing.assert_close(
        found.double(), torch.nn.functional.silu(gate) * up, **TOLERANCE[dtype]
    )


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 100.0, -100.0])
def test_the_gate_of_an_odd_number_is_what_torch_says(value):
    both = torch.tensor([[value, 3.0]])
    expected = torch.nn.functional.silu(both[:, :1]) * 3.0
    torch.testing.assert_close(decoding.gate(both), expected, rtol=1e-6, atol=1e-30, equal_nan=True)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3.3e38, 1.0 + 2**-8, 1.0 + 3 * 2**-8])
def test_bfloat16_is_rounded_as_torch_rounds(value):
    x = torch.full((1, 16), value)
    out = decoding.add_and_normalise(x, None, Norm(torch.ones(16), 0.0), torch.bfloat16)
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True))
    torch.testing.assert_close(out, (x * scale).bfloat16(), rtol=8e-3, atol=0, equal_nan=True)


def turned(x: Tensor, cosine: Tensor, sine: Tensor, norm: Norm | None) -> Tensor:
    """[rows, time, heads, size]; as `read` is told, in float64."""
    x = x.double() if norm is None else normalised(x, norm)
    exchanged = torch.cat(x.chunk(2, -1)[::-1], -1)
    return x * cosine.double()[:, :, None] + exchanged * sine.double()[:, :, None]


def case(dtype: torch.dtype, rows: int, time: int, heads: Heads, columns: int):
    """Rows lie in a store of two places more, in another order."""
    joined = rounded(dtype, rows, time, heads.width)
    rotation = tuple(torch.randn(rows, time, heads.size) for _ in range(2))
    stores = [rounded(dtype, rows + 2, heads.keys, columns, heads.size) for _ in range(2)]
    return joined, rotation, *stores, torch.randperm(rows + 2)[:rows]


def heard(
    queries: Tensor, keys: Tensor, values: Tensor, start: int, end: int, scale: float
) -> Tensor:
    """Of one row and one key head: softmax(scale q k^T) v of the columns that it sees."""
    seen = slice(start, end)
    weights = (scale * queries.double() @ keys[seen].double().T).softmax(-1)
    return weights @ values[seen].double()


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("size", sorted(SIZES))
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (2, 2), (4, 2), (9, 3), (8, 1), (7, 1)])
@pytest.mark.parametrize("normed", [False, True])
def test_a_token_hears_its_row_from_the_start_to_itself(dtype, size, queries, keys, normed):
    torch.manual_seed(size + queries)
    norms = [Norm(torch.rand(size) + 0.5, 1e-5) if normed else None for _ in range(2)]
    heads = Heads(queries, keys, size, *norms)
    rows, columns, column = 4, 50, 36
    joined, rotation, key_store, value_store, place = case(dtype, rows, 1, heads, columns)
    start, scale = torch.tensor([0, 4, 21, 36]), size**-0.5
    before, known = joined.clone(), (key_store.clone(), value_store.clone())
    out = decoding.read(
        joined, rotation, heads, key_store, value_store, place, start, column, scale
    )
    parts = before.view(rows, 1, -1, size).split((queries, keys, keys), 2)
    asked, key = (turned(x, *rotation, norm) for x, norm in zip(parts, norms, strict=False))
    # What is stored is what was there but for one column.
    torch.testing.assert_close(key_store[place, :, column].double(), key[:, 0], **TOLERANCE[dtype])
    torch.testing.assert_close(value_store[place, :, column], parts[2][:, 0], rtol=0, atol=0)
    for store, old in zip((key_store, value_store), known, strict=True):
        store = store.clone()
        store[place, :, column] = old[place, :, column]
        assert store.equal(old)
    # The oracle reads keys and queries as they were rounded.
    asked = asked[:, 0].to(dtype).unflatten(1, (keys, -1))
    found = out.view(rows, keys, -1, size)
    for row in range(rows):
        for head in range(keys):
            expected = heard(
                asked[row, head],
                key_store[place[row], head],
                value_store[place[row], head],
                int(start[row]),
                column + 1,
                scale,
            )
            allowed = (
                {"rtol": 1e-5, "atol": 1e-5}
                if dtype is torch.float32
                else {"rtol": 0.02, "atol": 0.02}
            )
            torch.testing.assert_close(found[row, head].double(), expected, **allowed)


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_prompt_is_read_as_its_tokens_one_by_one(dtype):
    """Bit for bit; padding stores nothing and hears 0."""
    torch.manual_seed(0)
    heads, rows, time = Heads(4, 2, 16), 3, 20
    joined, (cosine, sine), keys, values, place = case(dtype, rows, time, heads, time + 3)
    start = torch.tensor([0, 7, 19])
    stores = keys.clone(), values.clone()
    one_by_one = [
        decoding.read(
            joined[:, i : i + 1].contiguous(),
            (cosine[:, i : i + 1].contiguous(), sine[:, i : i + 1].contiguous()),
            heads,
            *stores,
            place,
            start,
            i,
            0.25,
        )
        for i in range(time)
    ]
    whole = decoding.read(
        joined.clone(), (cosine, sine), heads, keys, values, place, start, 0, 0.25
    )
    assert whole.equal(torch.cat(one_by_one, 1))
    assert keys.equal(stores[0])
    assert values.equal(stores[1])
    assert all((whole[row, : start[row]] == 0).all() for row in range(rows))
    assert (whole[1, 7:] != 0).all()


@pytest.mark.parametrize("dtype", FORMATS)
def test_results_do_not_depend_on_the_number_of_threads(dtype):
    def all_of_them() -> list[Tensor]:
        torch.manual_seed(0)
        heads = Heads(6, 3, 32)
        joined, rotation, keys, values, place = case(dtype, 17, 2, heads, 70)
        x, norm = torch.randn(33, 50), Norm(torch.randn(50), 1e-5)
        start = torch.arange(17)
        return [
            decoding.read(joined, rotation, heads, keys, values, place, start, 60, 0.2),
            keys,
            decoding.add_and_normalise(x, rounded(dtype, 33, 50), norm, dtype),
            decoding.gate(rounded(dtype, 33, 64)),
            *decoding.draw(rounded(dtype, 33, 3000), 0.9, torch.rand(33)),
        ]

    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(all_of_them())
    finally:
        torch.set_num_threads(threads)
    for one, other in (found[:2], found[1:]):
        assert all(a.equal(b) for a, b in zip(one, other, strict=True))


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 2500),
    st.integers(0, 2**32),
    st.sampled_from([0.3, 1.0, 1.7]),
    st.floats(0.0, 1.0, exclude_max=True, width=32),
    st.floats(0.0, 1.0),
)
def test_the_token_is_the_first_up_to_which_probabilities_exceed_the_number(
    size, seed, temperature, uniform, possible
):
    """The definition, in float64; at a border of two tokens rounding may go to either."""
    source = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, size, generator=source) * 4
    logits[torch.rand(1, size, generator=source) > possible] = -torch.inf
    logits[0, seed % size] = 1.0
    token, logprob = decoding.draw(logits, temperature, torch.tensor([uniform]))
    exact = (logits[0].double() / temperature).softmax(0)
    ends = exact.cumsum(0)
    assert exact[token] > 0
    assert ends[token] > uniform - 1e-5
    assert ends[token] - exact[token] < uniform + 1e-5
    torch.testing.assert_close(logprob.double(), exact[token].log(), rtol=2e-6, atol=4e-6)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("where", [0, 15, 1023, 1024, 2999])
def test_at_temperature_zero_the_first_of_the_most_likely_is_taken(dtype, where):
    logits = torch.randn(2, 3000).clamp(max=2.0).to(dtype)
    logits[:, where] = logits[0, 2999] = 5.0
    tokens, logprobs = decoding.draw(logits, 0.0, torch.zeros(2))
    assert tokens.tolist() == [where, where]
    expected = logits.double().log_softmax(-1)[:, where]
    torch.testing.assert_close(logprobs.double(), expected, rtol=0, atol=4e-6)


@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", [0, 1500, 2999])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_show_in_the_log_probability(odd, where, temperature):
    logits = torch.randn(3, 3000)
    logits[1, where] = odd
    tokens, logprobs = decoding.draw(logits, temperature, torch.full((3,), 0.5))
    assert logprobs.isfinite().tolist() == [True, False, True]
    assert ((tokens >= 0) & (tokens < 3000)).all()


def test_a_row_without_any_possible_token_has_no_log_probability():
    tokens, logprobs = decoding.draw(torch.full((1, 40), -torch.inf), 1.0, torch.zeros(1))
    assert 0 <= tokens.item() < 40
    assert not logprobs.isfinite().any()


HEADS = Heads(4, 2, 16)


def misread(**changed):
    """Arguments of `read` with one changed."""
    joined, rotation, keys, values, place = case(torch.float32, 3, 2, HEADS, 9)
    arguments = {
        "joined": joined,
        "rotation": rotation,
        "heads": HEADS,
        "keys": keys,
        "values": values,
        "place": place,
        "start": torch.zeros(3, dtype=torch.long),
        "column": 0,
        "scale": 1.0,
    }
    return arguments | changed


@pytest.mark.parametrize(
    "changed",
    [
        {"joined": torch.randn(3, 2, HEADS.width - 1)},
        {"joined": torch.randn(2, 3, HEADS.width).transpose(0, 1)},
        {"rotation": (torch.randn(3, 2, 16), torch.randn(3, 2, 8))},
        {"rotation": (torch.randn(3, 2, 16), torch.randn(3, 2, 16).double())},
        {"heads": Heads(4, 2, 112)},
        {"keys": torch.randn(5, 2, 9, 16).bfloat16()},
        {"values": torch.randn(5, 2, 8, 16)},
        {"values": torch.randn(4, 2, 9, 16)},
        {"start": torch.tensor([0, 0, -1])},
        {"start": torch.tensor([0, 10, 0])},
        {"start": torch.zeros(3)},
        {"place": torch.tensor([0, 1, 5])},
        {"place": torch.tensor([0, -1, 2])},
        {"place": torch.arange(2)},
        {"place": torch.arange(3.0)},
        {"column": 8},
        {"column": -1},
        {"heads": Heads(4, 2, 16, Norm(torch.ones(8), 0.1), Norm(torch.ones(16), 0.1))},
    ],
)
def test_what_would_be_misread_is_refused(changed):
    decoding.read(**misread())
    with pytest.raises(ValueError, match=r"found .* expected"):
        decoding.read(**misread(**changed))


def test_other_operations_refuse_it_too():
    x, norm = torch.randn(4, 6), Norm(torch.ones(6), 0.1)
    for wrong in (x.t(), x.double()):
        with pytest.raises(ValueError, match=r"found .* expected"):
            decoding.add_and_normalise(wrong, None, norm, torch.float32)
        with pytest.raises((ValueError, KeyError)):
            decoding.gate(wrong)
    with pytest.raises(ValueError, match=r"found .* expected"):
        decoding.add_and_normalise(x, x.bfloat16(), norm, torch.float32)
    with pytest.raises(ValueError, match=r"found .* expected"):
        decoding.draw(x, 1.0, torch.rand(3))


def test_other_devices_and_formats_are_not_its_business():
    assert available(torch.device("cpu"), torch.bfloat16)
    assert not available(torch.device("cpu"), torch.float16)
    assert not available(torch.device("meta"), torch.float32)
