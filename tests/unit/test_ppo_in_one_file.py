"""The one-file example runs as shown, stays short, and learns to count."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ppo_in_one_file.py"


def test_example_needs_nothing_but_torch_and_the_algorithms():
    tree = ast.parse(EXAMPLE.read_text("utf-8"))
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert {name.split(".")[0] for name in imported} <= {"torch", "tutelage"} | set(
        sys.stdlib_module_names
    )
    assert {name for name in imported if name.startswith("tutelage")} == {"tutelage.algorithms"}
    assert len(EXAMPLE.read_text("utf-8").splitlines()) < 150


@pytest.mark.slow
def test_example_learns_to_count():
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    steps = re.findall(r"step +(\d+) +reward (\d\.\d+) +KL +(-?\d+\.\d+)", done.stdout)
    rewards, divergences = [float(step[1]) for step in steps], [float(step[2]) for step in steps]
    assert rewards[0] < 0.1
    assert divergences[0] == 0
    assert sum(rewards[-5:]) / 5 > 0.9
    # A perfect counter is 5.5 tokens of ln 11 away from a uniform reference: 13.2 nats.
    assert 8 < divergences[-1] < 18
    before, after = done.stdout.split("after")
    assert "score 1.00" in after
    assert "6 -> 7 8 9 stop" in after
    assert "6 -> 7 8 9 stop" not in before
