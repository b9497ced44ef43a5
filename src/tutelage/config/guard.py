"""Settings of the guard: held-out signals, monitors of the probes, and what follows an alarm."""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    model_validator,
)

from tutelage.config.base import Section
from tutelage.config.stage import Reference

__all__ = ["GuardAction", "GuardConfig", "MonitorsConfig", "SignalConfig"]

GuardAction = Literal["off", "warn", "raise_beta", "roll_back", "stop"]


class SignalConfig(Section):
    """A held-out signal: something that judges answers and that the policy is never trained on."""

    model: Reference | None = None
    """A reward model other than the rewarded one: of other labels, another fold, another seed. What
    its calibration found it to pay for a token is taken off its scores."""
    function: str | None = None
    """A Python function `path.py:name` of (prompt, completion): a verifier, a rule."""
    judge: str | None = None
    """A Python function `path.py:name` of comparisons, which returns the probability that `a` is
    the better answer of each; `b` is the answer to the same prompt before training."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [n for n in ("model", "function", "judge") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a signal has one source, found {' and '.join(given) or 'none'}: set model, "
                "function or judge"
            )
        return self


class MonitorsConfig(Section):
    """What is watched in the probes, the limit of each, and what follows when it is passed."""

    divergence: GuardAction = "roll_back"
    """The reward has risen and a held-out signal has fallen since some earlier probe."""
    divergence_limit: NonNegativeFloat = 0.15
    """Loss of a held-out signal that is tolerated, by decoupling too, in its standard deviations
    before training."""
    decoupling: GuardAction = "warn"
    """A held-out signal gains less than its share while the reward rises."""
    decoupling_limit: NonNegativeFloat = 0.4
    """Standard deviations that a held-out signal must gain for each one that the reward gains; it
    may lack what `divergence_limit` tolerates."""
    kl_budget: GuardAction = "stop"
    """The policy has moved further from the reference than it may."""
    kl_budget_limit: PositiveFloat | None = None
    """Largest mean KL of an answer, in nats; unset has no budget, or that of `best_of_n`."""
    length: GuardAction = "warn"
    """Answers have become much longer or much shorter."""
    length_limit: float = Field(default=2.0, gt=1.0)
    """Factor by which the mean length may grow or shrink."""
    repetition: GuardAction = "warn"
    """Answers say the same again."""
    repetition_limit: NonNegativeFloat = 0.1
    """Rise of the share of word triples that stood before in the same answer."""
    entropy: GuardAction = "warn"
    """The policy has little choice left."""
    entropy_limit: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of the surprisal per token before training that must be left."""
    endings: GuardAction = "warn"
    """Fewer answers end by themselves, or in other words, more are truncated."""
    endings_limit: NonNegativeFloat = 0.1
    """Fall of the share of answers that end by themselves."""
    spread: GuardAction = "warn"
    """Rewards have become nearly equal, or far more different."""
    spread_limit: float = Field(default=3.0, gt=1.0)
    """Factor by which the standard deviation of rewards may grow or shrink."""
    openings: GuardAction = "warn"
    """Many answers begin with the same words."""
    openings_limit: NonNegativeFloat = 0.3
    """Rise of the probability that two answers begin with the same three words."""
    disagreement: GuardAction = "warn"
    """Reward models, rewarded or held out, no longer agree."""
    disagreement_limit: NonNegativeFloat = 0.5
    """Rise of the standard deviation between the reward models' scores of an answer."""
    outliers: GuardAction = "warn"
    """Answers look to the rewarded reward model unlike any answer before training."""
    outliers_limit: NonNegativeFloat = 0.2
    """Rise of the share of answers beyond 95 % of those before training, by the Mahalanobis
    distance of the reward model's last hidden state."""
    within_length: GuardAction = "warn"
    """The reward is gained by length: answers of the same length are hardly better."""
    within_length_limit: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the gain that must be found among answers of the same length."""

    def action(self, monitor: str) -> GuardAction:
        """What follows when a monitor rings."""
        chosen: GuardAction = getattr(self, monitor)
        return chosen

    def limit(self, monitor: str) -> float | None:
        """A monitor's limit."""
        number: float | None = getattr(self, f"{monitor}_limit")
        return number

    def asked(self, action: GuardAction) -> list[str]:
        """The monitors with this action."""
        names = (name for name in type(self).model_fields if not name.endswith("_limit"))
        return [name for name in names if getattr(self, name) == action]


class GuardConfig(Section):
    """Watches over probes for a reward that rises while answers get worse."""

    signals: dict[str, SignalConfig] = Field(default_factory=dict)
    """Held-out signals by name."""
    monitors: MonitorsConfig = MonitorsConfig()
    alpha: float = Field(default=0.05, gt=0.0, lt=1.0)
    """Probability of any false alarm in a whole run, over all monitors and all probes."""
    beta_factor: float = Field(default=2.0, gt=1.0)
    """What kl.coefficient is multiplied by when beta is raised, and on every roll-back."""
    max_roll_backs: NonNegativeInt = 2
    """Roll-backs after which an alarm that asks for another one stops the training."""
    best_of_n: Reference | None = None
    """A sample stage with many answers of the starting policy per prompt: where its best-of-n curve
    peaks by the first held-out signal is the prior for the KL budget."""

    def models(self) -> Iterator[str]:
        """The reward models among the signals."""
        return (signal.model for signal in self.signals.values() if signal.model is not None)

    def references(self) -> Iterator[str]:
        """The reward models among the signals, and the samples of the prior."""
        yield from self.models()
        if self.best_of_n is not None:
            yield self.best_of_n

    @model_validator(mode="after")
    def _has_what_it_acts_on(self) -> Self:
        if not self.signals:
            needy = self.monitors.asked("roll_back")
            if needy and needy != ["divergence"]:
                raise ValueError(
                    f"monitors.{needy[-1]} is 'roll_back', which goes back to the best probe by "
                    "held-out signals, but there are no signals: add one, or choose 'stop'"
                )
            if self.best_of_n is not None:
                raise ValueError(
                    "best_of_n reads a KL budget off a held-out signal, but there are no signals: "
                    "add one, or set monitors.kl_budget_limit to a number"
                )
        return self
