"""The guard as a whole: which action follows, what counts as best, and its state."""

import json

import pytest
from pydantic import ValidationError

from tutelage.config import GuardConfig
from tutelage.safety.guard import Guard

BAD = {"proxy": 2.0, "second": -2.0}


def test_rising_signal_makes_each_probe_the_best(probe, guarded):
    guard = Guard(guarded(), looks=3)
    verdicts = [guard.judge(probe(k, proxy=0.5 * k, second=0.5 * k)) for k in range(3)]
    assert [verdict.best for verdict in verdicts] == [True, True, True]
    assert [verdict.action for verdict in verdicts] == [None, None, None]
    assert guard.best_step == 2


def test_roll_back_goes_to_the_best_probe_and_forgets_what_came_after(probe, guarded):
    guard = Guard(guarded(decoupling="off"), looks=4)
    guard.judge(probe(0))
    guard.judge(probe(2, proxy=1.0, second=1.0))
    verdict = guard.judge(probe(4, proxy=2.0, second=-1.0))
    assert (verdict.action, verdict.best, guard.best_step) == ("roll_back", False, 2)
    assert [each.undone for each in guard.history] == [False, False, True]
    # From there all is well again.
    assert guard.judge(probe(6, proxy=1.1, second=1.2)).action is None


def test_training_stops_when_the_roll_backs_are_spent(probe, guarded):
    guard = Guard(guarded().model_copy(update={"max_roll_backs": 1}), looks=4)
    guard.judge(probe(0))
    assert guard.judge(probe(2, **BAD)).action == "roll_back"
    assert guard.judge(probe(4, **BAD)).action == "stop"
    assert guard.roll_backs == 1


def test_strongest_action_wins(probe, guarded):
    config = guarded(divergence="raise_beta", length="stop", decoupling="warn")
    guard = Guard(config, looks=4)
    guard.judge(probe(0))
    assert guard.judge(probe(2, **BAD)).action == "raise_beta"
    assert guard.judge(probe(4, **BAD, length=90.0)).action == "stop"


def test_alarms_are_said_once_and_counted(probe, guarded):
    heard: list[str] = []
    guard = Guard(guarded(divergence="warn", decoupling="off"), looks=4, notify=heard.append)
    guard.judge(probe(0))
    guard.judge(probe(2, **BAD))
    guard.judge(probe(4, **BAD))
    assert len(heard) == 1
    assert heard[0].startswith("alarm guard/divergence after step 2: since step 0 the reward went")
    summary = guard.summary()
    assert summary["alarm/guard/divergence"] == 2
    assert summary["alarm/guard/divergence/first"] == 2
    assert summary["guard/roll_backs"] == 0


def test_state_goes_through_json_and_decides_alike(probe, guarded):
    def until(guard: Guard, steps: range) -> list[object]:
        moves = {0: {}, 2: {"second": 1.0, "proxy": 1.0}, 4: BAD, 6: BAD, 8: BAD}
        return [guard.judge(probe(step, **moves[step])) for step in steps]

    straight = Guard(guarded(), looks=4)
    expected = until(straight, range(0, 9, 2))
    first, second = Guard(guarded(), looks=4), Guard(guarded(), looks=4)
    found = until(first, range(0, 5, 2))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    found += until(second, range(6, 9, 2))
    assert found == expected
    assert second.state_dict() == straight.state_dict()


def test_a_signal_has_one_source():
    with pytest.raises(ValidationError, match="found model and judge"):
        GuardConfig.model_validate({"signals": {"x": {"model": "rm", "judge": "a.py:b"}}})


def test_rolling_back_needs_a_signal():
    with pytest.raises(ValidationError, match=r"monitors.length is 'roll_back'"):
        GuardConfig.model_validate({"monitors": {"length": "roll_back"}})
    GuardConfig()
