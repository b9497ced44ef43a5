"""Monitors: functions of the measurements so far that say what has gone wrong, and how surely.

    measurements of steps 0, 4, 8 ... ──monitor──> p-value ──level──> Finding, or nothing

Every monitor tests a null hypothesis of its own over the same prompts, paired:

    divergence     since some earlier probe the reward has not risen, or the signal not fallen
    decoupling     since some earlier probe the signal has gained its share of what the reward did
    within_length  answers of the same length account for their share of the reward's gain
    all others     the mean is within a limit of that before training
    kl_budget      is a rule, not a test

False alarms. `alpha` is shared so that the probability of any in a whole run is at most alpha
(Bonferroni): one half among the signals, the other among all other tests, and each share equally
among the looks there will be. What a look has for a signal is divided by the earlier probes that
the signal is compared with, the best one included, which makes the choice of the best harmless.
Divergence is asked only of pairs that are decoupled, at the same level: tests in a fixed order need
no shares of their own (Hsu and Berger 1999).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tutelage.config import GuardConfig
from tutelage.safety.guard.measurement import HELD_OUT, Array, Measurement, mean, unit
from tutelage.safety.guard.paired import mean_above
from tutelage.safety.guard.within_length import within_length_gain

__all__ = ["Finding", "Levels", "look", "replay"]


_Test = Callable[[Measurement], float]
"""P-value of what is claimed of a probe and an earlier one."""


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
    """Significance levels of the single tests of one look."""

    signal: float
    """Of a signal against one earlier probe."""
    drift: float
    """Of any other test."""

    @classmethod
    def of(cls, alpha: float, looks: int, *, earlier: int, signals: int, drifts: int) -> "Levels":
        """Shares alpha.

        Args:
            alpha: of the whole run.
            looks: probes after the first, in the whole run.
            earlier: probes before this one, those that were undone included: which of them is left
                to compare with was chosen by what was measured.
            signals: held-out signals that a monitor looks at.
            drifts: tests of the other monitors.
        """
        kinds = (signals > 0) + (drifts > 0)
        share = alpha / max(1, kinds) / max(1, looks)
        return cls(share / max(1, signals) / max(1, earlier), share / max(1, drifts))


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
    drifts = {
        name: [drift for drift in tests if drift.column in now.columns]
        for name, tests in _DRIFTS.items()
        if _on(config, name)
    }
    signals = now.signals if _on(config, "decoupling") or _on(config, "divergence") else []
    levels = Levels.of(
        config.alpha,
        looks,
        earlier=len(history) - 1,
        signals=len(signals),
        drifts=sum(map(len, drifts.values())) + _on(config, "within_length"),
    )
    found = list(_kl_budget(now, config))
    for signal in signals:
        found += _against_signal(earlier, now, signal, config, levels.signal)
    if _on(config, "within_length"):
        found += _within_length(earlier[0], now, config, levels.drift)
    for name, tests in drifts.items():
        for drift in tests:
            found += _drift(earlier[0], now, name, drift, config, levels.drift)
    return found


def replay(history: Sequence[Measurement], config: GuardConfig, looks: int) -> list[list[Finding]]:
    """What rings in each measurement of a training that is over, with these settings.

    The training stays what it was: what had been undone later than a measurement is not compared
    with it either.
    """
    return [
        look([*history[:place], replace(now, undone=False)], config, looks)
        for place, now in enumerate(history)
    ]


def _on(config: GuardConfig, monitor: str) -> bool:
    return config.monitors.action(monitor) != "off"


def _kl_budget(now: Measurement, config: GuardConfig) -> Iterator[Finding]:
    limit = config.monitors.kl_budget_limit
    if not _on(config, "kl_budget") or limit is None or not now.mean("kl") > limit:
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


def _against_signal(
    earlier: Sequence[Measurement],
    now: Measurement,
    signal: str,
    config: GuardConfig,
    level: float,
) -> Iterator[Finding]:
    """Decoupling, and divergence of what is decoupled."""
    in_order: list[_Test] = []
    for name, test in (("decoupling", _decoupling), ("divergence", _divergence)):
        if _on(config, name):
            in_order.append(test([*earlier, now], signal, config))
            yield from _against_any(earlier, now, name, signal, in_order, level)


def _decoupling(history: Sequence[Measurement], signal: str, config: GuardConfig) -> _Test:
    now = history[-1]
    slope, tolerated = config.monitors.decoupling_limit, config.monitors.divergence_limit
    units = {name: unit(history, name) for name in ("proxy", signal)}

    def p_value(then: Measurement) -> float:
        if min(units.values()) <= 0.0:
            return 1.0
        rise = (now.columns["proxy"] - then.columns["proxy"]) / units["proxy"]
        gain = (now.columns[signal] - then.columns[signal]) / units[signal]
        return max(mean_above(rise), mean_above(slope * rise - gain, tolerated))

    return p_value


def _divergence(history: Sequence[Measurement], signal: str, config: GuardConfig) -> _Test:
    """Both must be significant: the test of a union of hypotheses needs no further correction."""
    now = history[-1]
    limit = config.monitors.divergence_limit * unit(history, signal)

    def p_value(then: Measurement) -> float:
        rise = now.columns["proxy"] - then.columns["proxy"]
        fall = then.columns[signal] - now.columns[signal]
        return max(mean_above(rise), mean_above(fall, limit))

    return p_value


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
    tests: Sequence[_Test],
    level: float,
) -> Iterator[Finding]:
    """Of the pair for which the least sure of the tests is surest."""
    found = [(max(test(then) for test in tests), then) for then in earlier]
    p, then = min(found, key=lambda pair: pair[0])
    if p <= level:
        yield Finding(name, signal, then.step, p, level, _both(then, now, signal))


def _both(then: Measurement, now: Measurement, signal: str) -> str:
    name = signal.removeprefix(HELD_OUT)
    return (
        f"since step {then.step} the reward went from {then.mean('proxy'):.3g} to "
        f"{now.mean('proxy'):.3g}, held-out {name} from {then.mean(signal):.3g} to "
        f"{now.mean(signal):.3g}"
    )
