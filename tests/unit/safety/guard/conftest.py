"""Hand-made histories of probes."""

from collections.abc import Callable

import numpy as np
import pytest

from tutelage.config import GuardConfig
from tutelage.safety.guard import Measurement

PROMPTS = 128


@pytest.fixture
def probe() -> Callable[..., Measurement]:
    """A quiet probe of 128 answers; columns can be moved by an amount or replaced."""

    def build(step: int, seed: int | None = None, **moves: object) -> Measurement:
        rng = np.random.default_rng(step if seed is None else seed)
        # What prompts have in common from probe to probe, and what is drawn anew each time.
        common = np.random.default_rng(99).normal(size=PROMPTS)
        columns = {
            "proxy": common + rng.normal(size=PROMPTS),
            "held_out/second": 0.5 * common + rng.normal(size=PROMPTS),
            "length": np.maximum(1.0, np.round(20 + 5 * rng.normal(size=PROMPTS))),
            "kl": 1.0 + rng.normal(size=PROMPTS),
            "ended": (rng.random(PROMPTS) < 0.98).astype(float),
            "repetition": np.maximum(0.0, 0.02 * rng.normal(size=PROMPTS)),
            "entropy": np.maximum(0.01, 1.0 + 0.2 * rng.normal(size=PROMPTS)),
            "openings": 0.1 + 0.1 * rng.normal(size=PROMPTS),
            "disagreement": np.abs(0.5 * rng.normal(size=PROMPTS)),
            "outliers": (rng.random(PROMPTS) < 0.05).astype(float),
        }
        for name, move in moves.items():
            name = "held_out/second" if name == "second" else name
            columns[name] = columns[name] + move if np.isscalar(move) else np.asarray(move)
        return Measurement(step, columns)

    return build


@pytest.fixture
def guarded() -> Callable[..., GuardConfig]:
    """The default guard with a signal, and these settings of its monitors."""

    def build(alpha: float = 0.05, **monitors: object) -> GuardConfig:
        return GuardConfig.model_validate(
            {
                "alpha": alpha,
                "signals": {"second": {"function": "rules.py:score"}},
                "monitors": monitors,
            }
        )

    return build
