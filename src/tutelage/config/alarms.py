"""Settings of the alarms that watch over the rounds of a learner."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat

from tutelage.config.base import Section

__all__ = ["AlarmAction", "AlarmsConfig"]

AlarmAction = Literal["warn", "stop", "off"]


class AlarmsConfig(Section):
    """What is wrong with a round by name, and what follows: warn, stop after saving, or off."""

    ratio_explosion: AlarmAction = "stop"
    """A token has become far more or less likely than when it was sampled."""
    ratio_explosion_limit: PositiveFloat = 20.0
    """Largest |log(pi / pi_old)| of a token, in nats."""
    kl_runaway: AlarmAction = "warn"
    """The policy is far from the reference."""
    kl_runaway_limit: PositiveFloat | None = None
    """Largest KL per sequence, in nats; null is ten times kl.target, or 100 without a target."""
    reward_constant: AlarmAction = "warn"
    """Every completion of a round has the same score: nothing can be learned."""
    reward_constant_limit: NonNegativeFloat = 1e-9
    """Standard deviation of the scores up to which they count as the same."""
    entropy_collapse: AlarmAction = "warn"
    """The policy always writes the same."""
    entropy_collapse_limit: NonNegativeFloat = 0.05
    """Smallest mean entropy of a token, in nats."""
    never_ends: AlarmAction = "warn"
    """Every completion of a round was cut off by sampling.max_tokens."""
    never_ends_limit: NonNegativeFloat = 0.0
    """Share of completions that end by themselves at which none counts as ending."""
    always_ends_at_once: AlarmAction = "warn"
    """The completions are empty: they end by themselves, and hold little but the stop token."""
    always_ends_at_once_limit: PositiveFloat = 1.5
    """Smallest mean length in tokens, stop token included, where nine in ten end."""
    value_divergence: AlarmAction = "warn"
    """The critic's errors vary far more than the returns do; not asked of the first round."""
    value_divergence_limit: float = -5.0
    """Smallest explained variance; 0 is a critic that predicts a constant."""
