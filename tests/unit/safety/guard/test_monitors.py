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
    """Nor does it decouple: what the reward gained, a signal may lack, and the fall beside it."""
    history = [probe(0), probe(4, proxy=2.0, second=-0.6)]
    both = {"divergence", "decoupling"}
    assert both <= names(look(history, guarded(divergence_limit=0.0), looks=6))
    assert names(look(history, guarded(divergence_limit=0.5), looks=6)) & both == {"decoupling"}
    assert not both & names(look(history, guarded(divergence_limit=1.6), looks=6))


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
    some = probe(4, proxy=1.0, second=-1.5)
    some.columns["held_out/second"][:100] = math.nan
    assert "divergence" in names(look([probe(0), some], guarded(), looks=1))
    some.columns["held_out/second"][:] = math.nan
    assert "divergence" not in names(look([probe(0), some], guarded(), looks=1))


def test_levels_share_alpha_exactly():
    """Over 3 looks: half to 2 signals, compared with 1, 2 and 3 probes; half to 5 other tests."""
    shared = [Levels.of(0.06, 3, earlier=k, signals=2, drifts=5) for k in (1, 2, 3)]
    assert [each.signal for each in shared] == pytest.approx(
        [0.03 / 3 / 2, 0.03 / 3 / 2 / 2, 0.03 / 3 / 2 / 3]
    )
    assert [each.drift for each in shared] == pytest.approx([0.03 / 3 / 5] * 3)
    whole = sum(2 * k * each.signal + 5 * each.drift for k, each in enumerate(shared, 1))
    assert whole == pytest.approx(0.06)


def test_tests_of_one_kind_have_all_of_alpha():
    assert Levels.of(0.06, 3, earlier=1, signals=2, drifts=0).signal == pytest.approx(0.06 / 3 / 2)
    assert Levels.of(0.06, 3, earlier=1, signals=0, drifts=5).drift == pytest.approx(0.06 / 3 / 5)


def test_probes_that_were_undone_count_among_those_that_were_compared_with(probe, guarded):
    """They were left out for what they measured: a level for those left would favour the best."""
    history = [probe(0), probe(4, proxy=1.0, second=2.0), probe(8, proxy=2.0, second=-1.0)]
    quiet = guarded(decoupling="off")
    (all_kept,) = look(history, quiet, looks=6)
    history[1].undone = True
    (one_left,) = look(history, quiet, looks=6)
    assert (all_kept.since, one_left.since) == (4, 0)
    assert one_left.level == all_kept.level


def test_divergence_is_asked_only_of_what_is_decoupled(probe, guarded):
    """A fixed order of tests: no pair diverges at a p-value below that of its decoupling."""
    now = probe(4, second=-2.0)
    # Sure over all answers, and not over the few of which the signal has an opinion.
    now.columns["proxy"] = probe(0).columns["proxy"] + 12 + 40 * (-1.0) ** np.arange(128)
    now.columns["held_out/second"][28:] = math.nan
    both = look([probe(0), now], guarded(decoupling_limit=40.0), looks=6)
    assert not {"divergence", "decoupling"} & names(both)
    alone = look([probe(0), now], guarded(decoupling="off"), looks=6)
    assert "divergence" in names(alone)
    sure = look([probe(0), probe(4, proxy=1.0, second=-1.0)], guarded(), looks=6)
    p = {finding.monitor: finding for finding in sure}
    assert p["divergence"].p >= p["decoupling"].p
    assert p["divergence"].level == p["decoupling"].level


@pytest.mark.parametrize(
    ("settings", "gained"),
    [
        # The reward rises, the signal is still, and no fall is tolerated.
        ({"decoupling": "off"}, 0.0),
        # The signal gains exactly its share: a quarter of a sigma for each, as drawn in `probe`.
        ({"decoupling_limit": 0.25}, 0.25 * 2.0 / 2**0.5 * 1.25**0.5),
    ],
)
def test_runs_at_the_edge_of_the_null_ring_falsely_in_at_most_alpha(
    settings, gained, probe, guarded
):
    """The hardest null of the signals."""
    config = guarded(alpha=0.4, within_length="off", divergence_limit=0.0, **settings)
    runs, alarms = 80, 0
    for run in range(runs):
        history = [
            probe(k, seed=1000 * run + k, proxy=2.0 * k, second=gained * k) for k in range(4)
        ]
        alarms += any(look(history[: k + 1], config, looks=3) for k in range(4))
    # Signals have half of alpha. Three standard errors of a share of 0.2 over 80 runs are 0.13.
    assert 0 < alarms / runs <= 0.2 + 0.13


def test_slow_fall_of_the_signal_is_caught_within_the_run(probe, guarded):
    """0.15 of a sigma lost per probe: power over 20 runs of 8 probes."""
    config, runs, caught = guarded(decoupling="off", within_length="off"), 20, 0
    for run in range(runs):
        history = [probe(k, seed=1000 * run + k, proxy=0.5 * k, second=-0.15 * k) for k in range(9)]
        caught += any(look(history[: k + 1], config, looks=8) for k in range(9))
    assert caught / runs >= 0.95
