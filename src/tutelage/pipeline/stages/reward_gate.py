"""Refuses, or warns of, a reward model that has not shown enough to train a policy against it.

<reward stage>/model ──> <reward stage>/reward.json ──thresholds──> nothing, a warning, or the end
"""

import json
from collections.abc import Callable
from pathlib import Path

from tutelage.config import GateConfig
from tutelage.errors import RewardError
from tutelage.evaluation.reward_gate import Thresholds, reasons_against

__all__ = ["QUALITY_FILE", "check_gate"]

QUALITY_FILE = "reward.json"


def check_gate(
    gate: GateConfig | None, model: Path, reference: str, warn: Callable[[str], None]
) -> None:
    """Compares what is known of a reward model with a recipe's thresholds.

    Args:
        gate: the thresholds; None asks nothing.
        model: the model's folder; its quality is recorded in it or beside it.
        reference: as the recipe names the model.
        warn: is told the reasons where the gate only warns.

    Raises:
        RewardError: the model falls short, and the gate's action is to fail.
    """
    if gate is None:
        return
    found = [path for path in (model / QUALITY_FILE, model.parent / QUALITY_FILE) if path.is_file()]
    asked = Thresholds(**gate.model_dump(exclude={"action"}))
    if found:
        reasons = reasons_against(json.loads(found[0].read_text(encoding="utf-8")), asked)
    else:
        reasons = [
            f"there is no {QUALITY_FILE} in {model} or beside it: write one by `tutelage reward "
            f"evaluate {model} --pairs FILE --output {model}`"
        ]
    if not reasons:
        return
    said = f"the reward model {reference!r} does not pass reward.gate: {'; '.join(reasons)}"
    if gate.action == "warn":
        warn(said)
        return
    raise RewardError(
        f"{said}. A policy trained against it would learn its errors: give it more or better "
        "labels, or lower the threshold, or set reward.gate.action to 'warn'"
    )
