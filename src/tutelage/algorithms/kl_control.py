"""The weight of the KL penalty, fixed or steered towards a target divergence.

The adaptive weight is state: it belongs in every checkpoint.
"""

import math
from collections.abc import Mapping
from typing import Protocol

__all__ = ["AdaptiveKL", "FixedKL", "KLCoefficient"]

_MAX_ERROR = 0.2


class KLCoefficient(Protocol):
    """What the training loop needs: today's beta, and the KL to set tomorrow's."""

    @property
    def value(self) -> float:
        """Beta, nats of reward per nat of divergence."""

    def update(self, kl: float, n: int) -> bool:
        """Takes the KL of the rollout just collected; true if it was finite."""

    def scale(self, factor: float) -> None:
        """Multiplies beta from outside, as a guard does that sees the reward being gamed."""

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint must hold."""

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Inverse of `state_dict`."""


class FixedKL:
    """A constant beta.

        β' = β

    Source: Stiennon et al. 2020 (arXiv:2009.01325), section 3.4.
    """

    def __init__(self, coefficient: float) -> None:
        """Raises ValueError for a negative coefficient."""
        if not coefficient >= 0:
            raise ValueError(f"the KL coefficient must be at least 0, found {coefficient!r}")
        self._value = coefficient

    @property
    def value(self) -> float:
        """Beta."""
        return self._value

    def update(self, kl: float, n: int) -> bool:
        """Changes nothing; true if `kl` is finite."""
        return math.isfinite(kl)

    def scale(self, factor: float) -> None:
        """Multiplies beta."""
        self._value *= factor

    def state_dict(self) -> dict[str, float]:
        """The coefficient."""
        return {"coefficient": self._value}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Inverse of `state_dict`."""
        self._value = state["coefficient"]


class AdaptiveKL:
    """A beta that rises while the divergence is above its target and falls below it.

        e = clip(KL / target - 1, -0.2, 0.2),   β' = β (1 + e · n / horizon)

    Source: Ziegler et al. 2019 (arXiv:1909.08593), section 2.2. `KL` is the mean over
    sequences of the **sum** over tokens, measured on the rollout just collected; the new
    beta holds for the next one.
    """

    def __init__(self, coefficient: float, target: float, horizon: float) -> None:
        """Starts at `coefficient`.

        Args:
            target: wanted divergence, in nats per sequence.
            horizon: number of sequences over which a full error changes beta by 20 %.

        Raises:
            ValueError: one of them is not positive; from 0 the update could never leave.
        """
        named = {"coefficient": coefficient, "target": target, "horizon": horizon}
        for name, number in named.items():
            if not (number > 0 and math.isfinite(number)):
                raise ValueError(f"adaptive KL needs a positive {name}, found {number!r}")
        self._value = coefficient
        self.target = target
        self.horizon = horizon

    @property
    def value(self) -> float:
        """Beta."""
        return self._value

    def update(self, kl: float, n: int) -> bool:
        """Moves beta by the KL of a rollout of `n` sequences.

        Returns:
            Whether the KL was finite. If not, beta stays and the caller should raise an alarm.

        Raises:
            ValueError: `n` is so large against the horizon that beta would reach 0 or below.
        """
        if not 0 < n * _MAX_ERROR < self.horizon:
            raise ValueError(
                f"a rollout of {n} sequences with a KL horizon of {self.horizon:g} can drive the "
                f"coefficient to 0 or below: use between 1 and {5 * self.horizon:g} sequences "
                "(exclusive), or a longer horizon"
            )
        if not math.isfinite(kl):
            return False
        error = min(max(kl / self.target - 1, -_MAX_ERROR), _MAX_ERROR)
        self._value *= 1 + error * n / self.horizon
        return True

    def scale(self, factor: float) -> None:
        """Multiplies beta; the target pulls it back."""
        self._value *= factor

    def state_dict(self) -> dict[str, float]:
        """The current coefficient; target and horizon belong to the configuration."""
        return {"coefficient": self._value}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Inverse of `state_dict`."""
        self._value = state["coefficient"]
