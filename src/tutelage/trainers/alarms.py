"""Alarms: names for what goes wrong in a round, read from the round's own metrics.

    metrics ──look──> names and sentences ──Alarms──> said once, counted in every round, or the end

Each alarm has an action and a limit in `alarms`. A metric that a round does not have, or that
is not a number, rings nothing: numbers that are not finite have a policy of their own.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from tutelage.config import RoundsConfig
from tutelage.errors import TrainingError

__all__ = ["Alarms", "look"]

_ENDING = 0.9
"""Share of completions that end by themselves, from which short ones are taken for empty ones."""


def look(step: int, metrics: Mapping[str, float], config: RoundsConfig) -> dict[str, str]:
    """What rings in a round: the alarm's name and a sentence with what was found and expected.

    Alarms that are off are left out.

    Args:
        step: number of the round, from 0.
        metrics: of the round.
        config: limits.
    """
    limits = config.alarms

    def get(key: str) -> float:
        return metrics.get(key, math.nan)

    kl_limit = _kl_limit(config)
    # A comparison with NaN is false, so that a missing metric rings nothing.
    found = {
        "ratio_explosion": (
            get("policy/log_ratio_max") > limits.ratio_explosion_limit,
            f"a token's probability changed by {get('policy/log_ratio_max'):.3g} nats during the "
            f"updates, expected at most {limits.ratio_explosion_limit:g}: lower "
            "policy.learning_rate or epochs, or set target_kl",
        ),
        "kl_runaway": (
            get("kl/sequence") > kl_limit,
            f"the policy is {get('kl/sequence'):.3g} nats per sequence from the reference, "
            f"expected at most {kl_limit:g}: raise {config.pull} or lower policy.learning_rate",
        ),
        "reward_constant": (
            config.rows_per_step > 1 and get("reward/std") <= limits.reward_constant_limit,
            f"all completions have the score {get('reward/score'):.4g}: look at the reward and at "
            "samples.jsonl",
        ),
        "entropy_collapse": (
            # Of a round that was not learned from nothing was measured.
            get("policy/entropy") < limits.entropy_collapse_limit
            and metrics.get("train/skipped", 0.0) < 1.0,
            f"the entropy is {get('policy/entropy'):.3g} nats per token, expected at least "
            f"{limits.entropy_collapse_limit:g}: raise kl.coefficient or entropy_coefficient",
        ),
        "never_ends": (
            get("response/stop_rate") <= limits.never_ends_limit,
            f"{get('response/stop_rate'):.0%} of the completions end by themselves: raise "
            "sampling.max_tokens, or make truncation cost something",
        ),
        "always_ends_at_once": (
            get("response/length") <= limits.always_ends_at_once_limit
            and get("response/stop_rate") >= _ENDING,
            f"completions have {get('response/length'):.3g} tokens on average, the stop token "
            "included: they are empty; look at the reward and the chat template",
        ),
        "value_divergence": (
            # A critic that no round has taught yet is wrong, and does not diverge.
            step > 0 and get("value/explained_variance") < limits.value_divergence_limit,
            f"the critic explains {get('value/explained_variance'):.3g} of the returns' variance, "
            f"expected at least {limits.value_divergence_limit:g}: lower critic.learning_rate, or "
            "raise critic_warmup",
        ),
    }
    return {
        name: sentence
        for name, (rings, sentence) in found.items()
        if rings and getattr(limits, name) != "off"
    }


def _kl_limit(config: RoundsConfig) -> float:
    if config.alarms.kl_runaway_limit is not None:
        return config.alarms.kl_runaway_limit
    target = config.kl_target
    return 100.0 if target is None else 10.0 * target


class Alarms:
    """The alarms of a stage: how often each has rung, and since when."""

    def __init__(self, config: RoundsConfig, notify: Callable[[str], None]) -> None:
        """Begins with silence.

        Args:
            config: actions and limits.
            notify: hears the first ringing of each alarm.
        """
        self._config, self._notify = config, notify
        self._stopping: dict[str, str] = {}
        self.rung: dict[str, Any] = {}
        """`count` and `first` step of each alarm that has rung: part of the stage's state."""

    def hear(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Looks at one round.

        Returns:
            `alarm/<name>`, the number of rounds in which it has rung, for those that ever have.
        """
        ringing = look(step, metrics, self._config)
        for name, sentence in ringing.items():
            if name not in self.rung:
                self.rung[name] = {"count": 0, "first": step}
                self._notify(f"alarm {name} in step {step}: {sentence}")
            self.rung[name]["count"] += 1
        actions = self._config.alarms
        self._stopping = {n: text for n, text in ringing.items() if getattr(actions, n) == "stop"}
        return {f"alarm/{name}": float(known["count"]) for name, known in self.rung.items()}

    @property
    def stopping(self) -> bool:
        """Whether the round just heard is to be the last."""
        return bool(self._stopping)

    def stop(self, step: int) -> TrainingError:
        """The error that ends the stage after the round that was heard last."""
        named = "; ".join(f"alarm {name}: {text}" for name, text in self._stopping.items())
        section = self._config.section
        keys = " or ".join(f"{section}.alarms.{name}" for name in self._stopping)
        return TrainingError(
            f"stopped and saved after step {step} by {named}. The same command goes on from there "
            f"as things are; {keys} set to warn does not stop"
        )

    def summary(self) -> dict[str, float]:
        """Which alarms rang, in how many rounds, and in which first."""
        numbers: dict[str, float] = {}
        for name, known in self.rung.items():
            numbers[f"alarm/{name}"] = float(known["count"])
            numbers[f"alarm/{name}/first"] = float(known["first"])
        return numbers
