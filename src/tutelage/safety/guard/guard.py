"""The guard of a training: takes one measurement after the other and says what is to be done.

    Measurement ──look──> findings ──actions──> Verdict: go on, warn, raise beta, roll back, stop
         └── best so far by held-out signals? ──> Verdict.best: worth keeping a copy of the policy

The guard decides; whoever trains acts. All it knows is in its state, which belongs to every
checkpoint of the training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from tutelage.config import GuardConfig
from tutelage.safety.guard.measurement import Measurement, unit
from tutelage.safety.guard.monitors import Finding, look

__all__ = ["Guard", "Verdict"]

_STRENGTH = ("warn", "raise_beta", "roll_back", "stop")


@dataclass(frozen=True)
class Verdict:
    """What follows from a probe."""

    findings: Sequence[Finding]
    action: str | None
    """The strongest action among the findings; None where nothing rings."""
    best: bool
    """Whether no probe so far was better by the held-out signals."""


class Guard:
    """The measurements of a run and what came of them."""

    def __init__(
        self, config: GuardConfig, looks: int, notify: Callable[[str], None] = lambda text: None
    ) -> None:
        """Begins with nothing measured.

        Args:
            config: monitors and actions.
            looks: measurements there will be after the first.
            notify: hears each alarm when it first rings, and each action.
        """
        self.config, self.looks, self._notify = config, looks, notify
        self.history: list[Measurement] = []
        self.alarms: list[dict[str, Any]] = []
        """Every ringing: step, action, and the finding's fields."""
        self.best_step: int | None = None
        self.roll_backs = 0
        self.stopped_after: int | None = None

    def judge(self, measurement: Measurement) -> Verdict:
        """Adds a measurement; the first is that before training.

        After a verdict to roll back, the measurements since the best are marked as undone.
        """
        self.history.append(measurement)
        findings = look(self.history, self.config, self.looks)
        action = self._strongest(findings)
        for finding in findings:
            self._record(measurement.step, finding)
        best = action in (None, "warn") and self._is_best(measurement)
        if best:
            self.best_step = measurement.step
        if action == "roll_back":
            self.roll_backs += 1
            for each in self.history:
                each.undone |= each.step > (self.best_step or 0)
        if action == "stop":
            self.stopped_after = measurement.step
        if action not in (None, "warn"):
            self._notify(f"guard after step {measurement.step}: {action.replace('_', ' ')}")
        return Verdict(findings, action, best)

    def _strongest(self, findings: Sequence[Finding]) -> str | None:
        asked = [self.config.monitors.action(finding.monitor) for finding in findings]
        if not asked:
            return None
        action = max(asked, key=_STRENGTH.index)
        spent = self.roll_backs >= self.config.max_roll_backs or self.best_step is None
        return "stop" if action == "roll_back" and spent else action

    def _record(self, step: int, finding: Finding) -> None:
        if finding.monitor not in {alarm["monitor"] for alarm in self.alarms}:
            self._notify(f"alarm guard/{finding.monitor} after step {step}: {finding.sentence}")
        action = self.config.monitors.action(finding.monitor)
        self.alarms.append({"step": step, "action": action, **asdict(finding)})

    def _is_best(self, measurement: Measurement) -> bool:
        kept = {each.step: each for each in self.history if not each.undone}
        if not measurement.signals:
            return False
        if self.best_step is None:
            return True
        return self.standing(measurement) > self.standing(kept[self.best_step])

    def standing(self, measurement: Measurement) -> float:
        """Mean gain of the held-out signals since the first probe, in their first sigmas."""
        first = self.history[0]
        gains = []
        for name in measurement.signals:
            sigma = unit(self.history, name) or 1.0
            gains.append((measurement.mean(name) - first.mean(name)) / sigma)
        return fmean(gains)

    def summary(self) -> dict[str, float]:
        """Which monitors rang in how many probes, after which step first, and what was done."""
        numbers: dict[str, float] = {}
        for alarm in self.alarms:
            key = f"alarm/guard/{alarm['monitor']}"
            numbers.setdefault(f"{key}/first", float(alarm["step"]))
        for key in [key.removesuffix("/first") for key in numbers]:
            name = key.removeprefix("alarm/guard/")
            steps = {alarm["step"] for alarm in self.alarms if alarm["monitor"] == name}
            numbers[key] = float(len(steps))
        if self.best_step is not None:
            numbers["guard/best_step"] = float(self.best_step)
        if self.stopped_after is not None:
            numbers["guard/stopped_after"] = float(self.stopped_after)
        return numbers | {"guard/roll_backs": float(self.roll_backs)}

    def state_dict(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            "history": [measurement.to_json() for measurement in self.history],
            "alarms": self.alarms,
            "best_step": self.best_step,
            "roll_backs": self.roll_backs,
            "stopped_after": self.stopped_after,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.history = [Measurement.from_json(row) for row in state["history"]]
        self.alarms = list(state["alarms"])
        self.best_step = state["best_step"]
        self.roll_backs = state["roll_backs"]
        self.stopped_after = state["stopped_after"]
