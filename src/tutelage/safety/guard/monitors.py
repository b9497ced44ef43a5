"""Monitors: functions of the measurements so far that say what has gone wrong, and how surely.

    measurements of steps 0, 4, 8 ... ──monitor──> p-value ──level──> Finding, or nothing

Every monitor tests a null hypothesis of its own over the same prompts, paired:

    divergence     since some earlier probe the reward has not risen, or the signal not fallen
    decoupling     since some earlier probe the signal has gained its share of what the reward did
    within_length  answers of the same length account for their share of the reward's gain
    all others     the mean is within a limit of that before training
    kl_budget      is a rule, not a test

False alarms. `alpha` is shared so that the probability of any in a whole run is at most alpha
(Bonferroni): one half among divergences, the other among all other tests; each share among the
looks there will be. A monitor that compares with any earlier probe, the best one included, shares
among all pairs of probes, which makes the choice of the best harmless.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tutelage.config import GuardConfig
from tutelage.safety.guard.measurement import HELD_OUT, Array, Measurement, mean, unit
from tutelage.safety.guard.paired import mean_above
from tutelage.safety.guard.within_length import within_length_gain

__all__ = ["Finding", "Levels", "look"]


@dataclass(frozen=True)
class Finding:
    """A monitor that rings."""

    monitor: str
    column: str
    """The column of the measurements in which it shows."""
    since: int
    """Step of the probe it was compared with."""
    p: float
    """P-value of the null hypothesis; 0 of a rule."""
    level: float
    """What the p-value had to stay above."""
    sentence: str


@dataclass(frozen=True)
class Levels:
    """Significance levels of the single tests of a run."""

    divergence: float
    pair: float
    """Of the other tests against any earlier probe."""
    look: float
    """Of tests against the first probe."""

    @classmethod
    def of(cls, alpha: float, looks: int, signals: int, others: int) -> "Levels":
        """Shares alpha.

        Args:
            alpha: of the whole run.
            looks: probes after the first.
            signals: held-out signals, each with a divergence test.
            others: tests of the other monitors.
        """
        pairs = max(1, looks * (looks + 1) // 2)
        half = alpha / 2
        each = half / max(1, others)
        return cls(half / max(1, signals) / pairs, each / pairs, each / max(1, looks))


@dataclass(frozen=True)
class _Drift:
    """A mean that must stay within a limit of that before training."""

    column: str
    words: str
    excess: Callable[[Array, Array, float], Array]
    """Of now, before and the limit: values whose mean is above 0 where the limit is passed."""


def _fell(now: Array, before: Array, limit: float) -> Array:
    return before - now - limit


def _rose(now: Array, before: Array, limit: float) -> Array:
    return now - before - limit


def _grew(now: Array, before: Array, limit: float) -> Array:
    return now - limit * before


def _shrank(now: Array, before: Array, limit: float) -> Array:
    return before - limit * now


def _left(now: Array, before: Array, limit: float) -> Array:
    return limit * before - now


def _wider(now: Array, before: Array, limit: float) -> Array:
    return _grew(_squares(now), _squares(before), limit**2)


def _narrower(now: Array, before: Array, limit: float) -> Array:
    return _shrank(_squares(now), _squares(before), limit**2)


def _squares(values: Array) -> Array:
    """Squared distances from the mean: their own mean is the variance."""
    squares: Array = (values - mean(values)) ** 2
    return squares


_DRIFTS = {
    "length": (
        _Drift("length", "tokens of an answer grew more than {:g}-fold", _grew),
        _Drift("length", "tokens of an answer shrank more than {:g}-fold", _shrank),
    ),
    "repetition": (_Drift("repetition", "repeated phrases rose by more than {:g}", _rose),),
    "entropy": (_Drift("entropy", "nats of surprisal per token fell below {:g} times it", _left),),
    "endings": (_Drift("ended", "answers that end fell by more than {:g}", _fell),),
    "spread": (
        _Drift("proxy", "the rewards' standard deviation grew more than {:g}-fold", _wider),
        _Drift("proxy", "the rewards' standard deviation shrank more than {:g}-fold", _narrower),
    ),
    "openings": (_Drift("openings", "identical openings rose by more than {:g}", _rose),),
    "disagreement": (
        _Drift("disagreement", "sigmas between reward models rose by more than {:g}", _rose),
    ),
    "outliers": (
        _Drift("outliers", "answers unlike those before training rose by more than {:g}", _rose),
    ),
}


def look(history: Sequence[Measurement], config: GuardConfig, looks: int) -> list[Finding]:
    """What rings in the last of the measurements.

    Args:
        history: the first is that before training; those that were undone are not compared with.
        config: monitors that are off are left out.
        looks: how many measurements there will be in the whole run, the first not counted.
    """
    *earlier, now = [each for each in history if not each.undone]
    if not earlier:
        return list(_kl_budget(now, config))
    monitors = config.monitors
    drifts = {
        name: [drift for drift in tests if drift.column in now.columns]
        for name, tests in _DRIFTS.items()
        if monitors.action(name) != "off"
    }
    on = {n for n in ("divergence", "decoupling", "within_length") if monitors.action(n) != "off"}
    others = sum(map(len, drifts.values())) + ("within_length" in on)
    others += len(now.signals) * ("decoupling" in on)
    levels = Levels.of(config.alpha, looks, len(now.signals), others)
    found = list(_kl_budget(now, config))
    for signal in now.signals:
        if "divergence" in on:
            found += _divergence(earlier, now, signal, config, levels.divergence)
        if "decoupling" in on:
            found += _decoupling(earlier, now, signal, config, levels.pair)
    if "within_length" in on:
        found += _within_length(earlier[0], now, config, levels.look)
    for name, tests in drifts.items():
        for drift in tests:
            found += _drift(earlier[0], now, name, drift, config, levels.look)
    return found


def _kl_budget(now: Measurement, config: GuardConfig) -> Iterator[Finding]:
    limit = config.monitors.kl_budget_limit
    if config.monitors.kl_budget == "off" or limit is None or not now.mean("kl") > limit:
        return
    sentence = f"{now.mean('kl'):.3g} nats of KL per answer, the budget is {limit:.3g}"
    yield Finding("kl_budget", "kl", now.step, 0.0, 0.0, sentence)


def _drift(
    first: Measurement,
    now: Measurement,
    name: str,
    drift: _Drift,
    config: GuardConfig,
    level: float,
) -> Iterator[Finding]:
    limit = config.monitors.limit(name)
    assert limit is not None, "only the KL budget may be unset"
    column = drift.column
    p = mean_above(drift.excess(now.columns[column], first.columns[column], limit))
    if p <= level:
        words = drift.words.format(limit)
        sentence = f"{words}: mean {column} {first.mean(column):.3g}, now {now.mean(column):.3g}"
        yield Finding(name, column, first.step, p, level, sentence)


def _divergence(
    earlier: Sequence[Measurement],
    now: Measurement,
    signal: str,
    config: GuardConfig,
    level: float,
) -> Iterator[Finding]:
    """Both must be significant: the test of a union of hypotheses needs no further correction."""
    limit = config.monitors.divergence_limit * unit([*earlier, now], signal)

    def p_value(then: Measurement) -> float:
        rise = now.columns["proxy"] - then.columns["proxy"]
        fall = then.columns[signal] - now.columns[signal]
        return max(mean_above(rise), mean_above(fall, limit))

    yield from _against_any(earlier, now, "divergence", signal, p_value, level)


def _decoupling(
    earlier: Sequence[Measurement],
    now: Measurement,
    signal: str,
    config: GuardConfig,
    level: float,
) -> Iterator[Finding]:
    slope = config.monitors.decoupling_limit
    units = {name: unit([*earlier, now], name) for name in ("proxy", signal)}

    def p_value(then: Measurement) -> float:
        rise = (now.columns["proxy"] - then.columns["proxy"]) / units["proxy"]
        gain = (now.columns[signal] - then.columns[signal]) / units[signal]
        return max(mean_above(rise), mean_above(slope * rise - gain))

    if min(units.values()) <= 0.0:
        return
    yield from _against_any(earlier, now, "decoupling", signal, p_value, level)


def _within_length(
    first: Measurement, now: Measurement, config: GuardConfig, level: float
) -> Iterator[Finding]:
    gain = within_length_gain(
        first.columns["length"],
        first.columns["proxy"],
        now.columns["length"],
        now.columns["proxy"],
    )
    p = gain.p_below(config.monitors.within_length_limit)
    if p <= level:
        sentence = (
            f"of {gain.whole:.3g} that the reward gained, {gain.within:.3g} are gained among "
            f"answers of the same length: mean length {first.mean('length'):.3g}, now "
            f"{now.mean('length'):.3g}"
        )
        yield Finding("within_length", "proxy", first.step, p, level, sentence)


def _against_any(
    earlier: Sequence[Measurement],
    now: Measurement,
    name: str,
    signal: str,
    p_value: Callable[[Measurement], float],
    level: float,
) -> Iterator[Finding]:
    p, then = _surest(earlier, p_value)
    if p <= level:
        yield Finding(name, signal, then.step, p, level, _both(then, now, signal))


def _surest(
    earlier: Sequence[Measurement], p_value: Callable[[Measurement], float]
) -> tuple[float, Measurement]:
    found = [(p_value(then), then) for then in earlier]
    return min(found, key=lambda pair: pair[0])


def _both(then: Measurement, now: Measurement, signal: str) -> str:
    name = signal.removeprefix(HELD_OUT)
    return (
        f"since step {then.step} the reward went from {then.mean('proxy'):.3g} to "
        f"{now.mean('proxy'):.3g}, held-out {name} from {then.mean(signal):.3g} to "
        f"{now.mean(signal):.3g}"
    )
