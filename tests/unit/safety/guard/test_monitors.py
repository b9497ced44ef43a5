"""Monitors on hand-made histories: each drift rings its own, quiet ones ring nothing."""

import math

import numpy as np
import pytest

from tutelage.safety.guard import Finding, Levels, Measurement, look

ALL = (
    "divergence",
    "decoupling",
    "kl_budget",
    "length",
    "repetition",
    "entropy",
    "endings",
    "spread",
    "openings",
    "disagreement",
    "outliers",
    "within_length",
)


def names(findings: list[Finding]) -> set[str]:
    return {finding.monitor for finding in findings}


@pytest.mark.parametrize(
    ("monitor", "moves"),
    [
        ("divergence", {"proxy": 1.0, "second": -1.0}),
        ("decoupling", {"proxy": 8.0, "second": 0.0}),
        ("length", {"length": 40.0}),
        ("length", {"length": np.full(128, 4.0)}),
        ("repetition", {"repetition": 0.2}),
        ("entropy", {"entropy": np.full(128, 0.05)}),
        ("endings", {"ended": np.zeros(128)}),
        ("spread", {"proxy": np.zeros(128)}),
        ("spread", {"proxy": 20 * np.random.default_rng(1).normal(size=128)}),
        ("openings", {"openings": 0.6}),
        ("disagreement", {"disagreement": 1.0}),
        ("outliers", {"outliers": np.arange(128) % 2.0}),
    ],
)
def test_each_drift_rings_its_monitor(monitor, moves, probe, guarded):
    quiet = dict.fromkeys(set(ALL) - {monitor}, "off")
    findings = look([probe(0), probe(4, **moves)], guarded(**quiet), looks=6)
    assert names(findings) == {monitor}
    assert all(finding.p <= finding.level for finding in findings)
    assert look([probe(0), probe(4)], guarded(**quiet), looks=6) == []
    off = guarded(**dict.fromkeys(ALL, "off"))
    assert look([probe(0), probe(4, **moves)], off, looks=6) == []


def test_reward_and_signal_that_rise_together_ring_nothing(probe, guarded):
    history = [probe(step, proxy=step / 4, second=step / 6) for step in range(0, 25, 4)]
    for end in range(1, len(history) + 1):
        assert look(history[:end], guarded(), looks=6) == []


def test_falling_signal_without_a_rising_reward_is_no_divergence(probe, guarded):
    findings = look([probe(0), probe(4, proxy=-1.0, second=-1.0)], guarded(), looks=6)
    assert "divergence" not in names(findings)


def test_divergence_is_seen_from_the_best_probe_though_the_first_was_worse(probe, guarded):
    history = [probe(0), probe(4, proxy=1.0, second=2.0), probe(8, proxy=2.0, second=1.0)]
    (finding,) = look(history, guarded(decoupling="off"), looks=6)
    assert (finding.monitor, finding.since) == ("divergence", 4)
    history[1].undone = True
    assert look(history, guarded(decoupling="off"), looks=6) == []


def test_judge_to_whom_all_first_answers_are_alike_is_heard(probe, guarded):
    """Its scores before training are 0.5 throughout, and have no spread to be measured in."""
    rng = np.random.default_rng(3)
    quiet = dict.fromkeys(set(ALL) - {"decoupling"}, "off")
    first = probe(0, second=np.full(128, 0.5))
    same = probe(4, proxy=5.0, second=0.5 + 0.3 * rng.normal(size=128))
    better = probe(4, proxy=5.0, second=0.9 + 0.3 * rng.normal(size=128))
    assert names(look([first, same], guarded(**quiet), looks=6)) == {"decoupling"}
    assert look([first, better], guarded(**quiet), looks=6) == []


def test_tolerated_fall_rings_nothing(probe, guarded):
    history = [probe(0), probe(4, proxy=2.0, second=-0.6)]
    assert "divergence" in names(look(history, guarded(), looks=6))
    assert "divergence" not in names(look(history, guarded(divergence_limit=0.9), looks=6))


def test_kl_budget_is_a_rule_that_holds_from_the_first_probe(probe, guarded):
    (finding,) = look([probe(0, kl=5.0)], guarded(kl_budget_limit=4.0), looks=6)
    assert finding.monitor == "kl_budget"
    assert finding.sentence.endswith("the budget is 4")
    assert look([probe(0, kl=5.0)], guarded(), looks=6) == []


def test_gain_by_length_alone_is_told_from_gain_within_lengths(probe, guarded):
    def paid(measurement: Measurement, **changes: object) -> Measurement:
        columns = dict(measurement.columns)
        columns["proxy"] = 0.05 * columns["length"]
        for name, change in changes.items():
            columns[name] = columns[name] + change
        return Measurement(measurement.step, columns)

    quiet = dict.fromkeys(set(ALL) - {"within_length"}, "off")
    rng = np.random.default_rng(0)
    before = paid(probe(0, length=rng.integers(5, 100, 128).astype(float)))
    longer = paid(probe(4, length=rng.integers(45, 140, 128).astype(float)))
    better = paid(probe(4, length=before.columns["length"]), proxy=1.0)
    limit = {"within_length_limit": 0.3}
    assert names(look([before, longer], guarded(**quiet, **limit), looks=6)) == {"within_length"}
    assert look([before, better], guarded(**quiet, **limit), looks=6) == []


def test_answers_that_could_not_be_scored_are_left_out(probe, guarded):
    some = probe(4, proxy=1.0, second=-1.0)
    some.columns["held_out/second"][:100] = math.nan
    assert "divergence" in names(look([probe(0), some], guarded(), looks=1))
    some.columns["held_out/second"][:] = math.nan
    assert "divergence" not in names(look([probe(0), some], guarded(), looks=1))


def test_levels_share_alpha_exactly():
    """Half to 2 signals over 3 looks, 6 pairs; half to 5 other tests."""
    levels = Levels.of(0.06, looks=3, signals=2, others=5)
    assert levels.divergence == pytest.approx(0.03 / 2 / 6)
    assert levels.look == pytest.approx(0.03 / 5 / 3)
    assert levels.pair == pytest.approx(0.03 / 5 / 6)
    whole = 2 * 6 * levels.divergence + 5 * 3 * levels.look
    assert whole == pytest.approx(0.06)


def test_runs_at_the_edge_of_the_null_ring_falsely_in_at_most_alpha(probe, guarded):
    """The reward rises, the signal is still, and no fall is tolerated: the hardest null."""
    config = guarded(alpha=0.4, decoupling="off", within_length="off")
    runs, alarms = 80, 0
    for run in range(runs):
        history = [probe(k, seed=1000 * run + k, proxy=2.0 * k) for k in range(4)]
        alarms += any(look(history[: k + 1], config, looks=3) for k in range(4))
    # Divergence has half of alpha. Three standard errors of a share of 0.2 over 80 runs are 0.13.
    assert 0 < alarms / runs <= 0.2 + 0.13


def test_slow_fall_of_the_signal_is_caught_within_the_run(probe, guarded):
    """0.15 of a sigma lost per probe: power over 20 runs of 8 probes."""
    config, runs, caught = guarded(decoupling="off", within_length="off"), 20, 0
    for run in range(runs):
        history = [probe(k, seed=1000 * run + k, proxy=0.5 * k, second=-0.15 * k) for k in range(9)]
        caught += any(look(history[: k + 1], config, looks=8) for k in range(9))
    assert caught / runs >= 0.95
