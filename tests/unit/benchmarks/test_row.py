from benchmarks.core.row import Row, Side, clocks

OURS = Side("tutelage", "a:b", {"device": "cuda", "dtype": "bfloat16"})
PEER = Side("peer", "a:b", {"dtype": "bfloat16"}, "peer")


def test_row_moves_to_another_device_with_its_sides_and_clocks():
    row = Row("X1", "", "", [OURS, PEER], quantities=clocks("cuda"), device="cuda").on("cpu")
    assert row.device == "cpu"
    assert [side.options for side in row.sides] == [
        {"device": "cpu", "dtype": "bfloat16"},
        {"dtype": "bfloat16"},
    ]
    assert tuple(row.quantities) == clocks("cpu")
    assert tuple(row.on("cuda").quantities) == clocks("cuda")


def test_memory_of_a_gpu_is_not_compared_on_a_cpu():
    row = Row("X1", "", "", [], quantities=(*clocks("cuda"), "device_bytes"), device="cuda")
    assert "device_bytes" in row.on("cuda").quantities
    assert tuple(row.on("cpu").quantities) == clocks("cpu")


def test_what_is_no_clock_stays():
    assert tuple(Row("X1", "", "", [], ("idle",), device="cuda").on("cpu").quantities) == ("idle",)
