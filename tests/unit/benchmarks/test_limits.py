import pytest
import torch
from benchmarks.rows import ROWS
from benchmarks.sides.limits import _products, least_seconds
from benchmarks.sides.requests import Requests
from benchmarks.sides.shapes import SHAPES, causal_lm, weights

ASKED = {"shape": "micro", "count": 3, "shortest": 4, "longest": 4, "answer": 5, "full": True}


def test_weights_are_those_of_the_matrices_in_the_model():
    for shape in ("micro", "tiny"):
        matrices = [w for w in causal_lm(shape, 0).parameters() if w.ndim == 2]
        assert sum(weights(shape)) == sum(w.numel() for w in matrices)


def test_the_named_shapes_have_their_known_sizes():
    # SmolLM2-135M has 134.5 million weights, 28 thousand of them in norms.
    assert sum(weights("135M")) == pytest.approx(134.5e6, rel=1e-3)
    assert sum(weights("1B")) == pytest.approx(1.236e9, rel=1e-3)


def test_limit_of_decoding_by_arithmetic_alone():
    layers, head = weights("micro")
    rates = {"flops": 1e9, "bytes_per_s": 1e30}
    # 3 prompts of 4 tokens, the head for the last of each, then 4 more steps of 3 rows each.
    expected = 2 * (layers * (12 + 12) + head * (3 + 12)) / 1e9
    assert least_seconds("decode", ASKED, "float32", rates) == pytest.approx(expected)


def test_limit_of_decoding_by_bytes_alone():
    layers, head = weights("micro")
    rates = {"flops": 1e30, "bytes_per_s": 1e9}
    cache = 2 * 2 * 1 * 16 * 4  # keys and values, layers, heads, size, bytes
    context = 3 * (5 + 6 + 7 + 8)
    expected = (4 * (layers + head) * 4 + context * cache) / 1e9
    assert least_seconds("decode", ASKED, "float32", rates) == pytest.approx(expected)
    assert least_seconds("decode", ASKED, "bfloat16", rates) == pytest.approx(expected / 2)


def test_the_rate_of_products_is_that_of_the_fastest_way():
    """All of them are products of the same two matrices."""
    a = torch.randn(96, 96, generator=torch.Generator().manual_seed(0))
    found = [way() for way in _products(a)]
    torch.testing.assert_close(found[0], a @ a)
    for other in found[1:]:
        torch.testing.assert_close(other, a @ a.T)


def test_an_update_costs_six_flops_per_weight_token_and_epoch():
    layers, head = weights("micro")
    rates = {"flops": 1e9, "bytes_per_s": 1e30}
    tokens = Requests(**ASKED).real_tokens
    expected = 6 * 4 * (2 * layers + head) * tokens / 1e9
    assert least_seconds("update", ASKED, "float32", rates, epochs=4) == pytest.approx(expected)


def test_one_trunk_is_trained_once_and_its_frozen_layers_are_read_once():
    layers, head = weights("micro")
    rates = {"flops": 1e9, "bytes_per_s": 1e30}
    tokens = Requests(**ASKED).real_tokens
    options = {"epochs": 4, "trunks": 1, "frozen_layers": 1}
    trained, frozen = layers / 2, layers / 2  # Of two layers.
    per_token = 4 * (6 * trained + 4 * head) + 2 * frozen
    found = least_seconds("update", ASKED, "float32", rates, **options)
    assert found == pytest.approx(per_token * tokens / 1e9)
    # Scored besides: the reference's upper layer and head, and the reward model.
    whole = least_seconds("ppo", ASKED, "float32", rates, **options)
    decoding = least_seconds("decode", ASKED, "float32", rates)
    scored = 2 * (trained + head + layers) * tokens / 1e9
    assert whole - decoding - found == pytest.approx(scored)


def test_head_is_computed_twice_forward_and_once_backward():
    # Of a head of 32 x 256: 2 and 2 flops forward, 2 for each of the two gradients.
    rates = {"flops": 1e9, "bytes_per_s": 1e30}
    expected = 8 * 32 * 256 * (3 * 5) / 1e9
    assert least_seconds("head", ASKED, "bfloat16", rates) == pytest.approx(expected)


def test_refresh_reads_four_bytes_of_a_weight_and_writes_two():
    rates = {"flops": 1e30, "bytes_per_s": 1e9}
    expected = 6 * sum(weights("micro")) / 1e9
    assert least_seconds("refresh", ASKED, "bfloat16", rates) == pytest.approx(expected)


def test_what_lies_between_products_is_read_and_written_once():
    # micro: hidden 32, queries 32, keys 16, mlp 64; two blocks, two trunks, three epochs.
    rates = {"flops": 1e30, "bytes_per_s": 1e9}
    one_block = (8 + 8) * 32 + (2 + 2) * (32 + 16) + (3 + 5) * 64
    # 3 rows of 4 tokens and 5 answered.
    expected = 4 * 3 * 2 * 2 * one_block * 3 * (4 + 5) / 1e9
    found = least_seconds("between", ASKED, "float32", rates, epochs=3)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("name", ROWS)
def test_rows_name_sides_and_shapes_that_exist(name):
    for quick in (True, False):
        row = ROWS[name](quick)
        names = [side.name for side in row.sides]
        assert len(set(names)) == len(names)
        assert any(side.ours for side in row.sides)
        for side in row.sides:
            requests = side.options.get("requests", {"shape": "tiny"})
            assert requests["shape"] in SHAPES
            module, _, cls = side.workload.partition(":")
            assert module.startswith("benchmarks.")
            assert cls


def test_rows_carry_the_names_of_the_table():
    assert all(make(False).name == name for name, make in ROWS.items())
