"""The guard against a reward that rises while answers get worse; see docs/guard.md."""

from tutelage.safety.guard.guard import Guard, Verdict
from tutelage.safety.guard.measurement import (
    HELD_OUT,
    Measurement,
    describe,
    disagreement,
    unit,
)
from tutelage.safety.guard.monitors import Finding, Levels, look, replay
from tutelage.safety.guard.outliers import Clouds, last_states
from tutelage.safety.guard.signals import AgainstFirst, AtEqualLength

__all__ = [
    "HELD_OUT",
    "AgainstFirst",
    "AtEqualLength",
    "Clouds",
    "Finding",
    "Guard",
    "Levels",
    "Measurement",
    "Verdict",
    "describe",
    "disagreement",
    "last_states",
    "look",
    "replay",
    "unit",
]
