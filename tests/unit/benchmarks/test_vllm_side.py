from pathlib import Path

import pytest
from benchmarks.core.environments import python_of
from benchmarks.core.row import NotAvailable
from benchmarks.rows import ROWS
from benchmarks.sides.vllm_engine import VLLM

REQUESTS = {"shape": "tiny", "count": 2, "shortest": 4, "longest": 4, "answer": 4}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"requests": {**REQUESTS, "shape": "micro"}}, "no heads of size 16"),
        ({"requests": REQUESTS, "device": "cuda"}, "the row runs on cuda"),
    ],
)
def test_side_that_vllm_cannot_serve_says_why(options, reason):
    with pytest.raises(NotAvailable, match=reason):
        VLLM(dtype="float32", **options).prepare()


@pytest.mark.parametrize("name", ["C1", "C1f", "C2", "H1", "H2"])
def test_vllm_for_cpus_is_a_peer_of_the_rows_of_a_cpu(name):
    sides = {side.name: side for side in ROWS[name](False).sides}
    assert ("vLLM" in sides) is name.startswith("C")
    if "vLLM" in sides:
        assert sides["vLLM"].environment == "vllm"
        assert not sides["vLLM"].ours


def test_interpreter_with_vllm_can_be_named(monkeypatch):
    monkeypatch.setenv("TUTELAGE_BENCH_VLLM", "/elsewhere/bin/python")
    assert python_of("vllm") == Path("/elsewhere/bin/python")
