import time

import pytest
from benchmarks.core.worker import turn


class Workload:
    """Calls that take the same time and report seconds as they were told to."""

    def __init__(self, takes, first, others):
        self.takes, self.first, self.others = takes, first, others
        self.calls = 0

    def run(self):
        time.sleep(self.takes)
        self.calls += 1
        return {"wall_s": self.first if self.calls == 1 else self.others, "tokens": 7}


def test_short_calls_are_repeated_and_the_first_is_not_counted():
    work = Workload(takes=0.005, first=100.0, others=2.0)
    figures = turn(work, seconds=0.1)
    assert figures["wall_s"] == 2.0
    assert figures["tokens"] == 7
    assert figures["calls"] == work.calls - 1
    # A machine that does something else in between makes them fewer, never more.
    assert 1 < figures["calls"] <= 0.1 / 0.005 + 1


def test_call_that_fills_a_turn_is_made_once():
    work = Workload(takes=0.05, first=3.0, others=1.0)
    assert turn(work, seconds=0.04)["wall_s"] == 3.0
    assert work.calls == 1


def test_figures_are_means_of_all_calls_of_a_turn():
    work = Workload(takes=0.05, first=4.0, others=1.0)
    # The first takes more than a tenth of the turn: it counts.
    figures = turn(work, seconds=0.08)
    assert figures["wall_s"] == pytest.approx((4.0 + (work.calls - 1)) / work.calls)
    assert work.calls > 1


def test_without_a_length_a_turn_is_one_call():
    work = Workload(takes=0.0, first=1.0, others=5.0)
    assert turn(work, seconds=0.0)["calls"] == work.calls == 1
