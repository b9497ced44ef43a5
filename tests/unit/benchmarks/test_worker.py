import pytest
from benchmarks.core.worker import turn


class Workload:
    """Calls that move a clock of their own, and report seconds as they were told to."""

    def __init__(self, takes, first, others):
        self.takes, self.first, self.others = takes, first, others
        self.calls = 0

    def run(self):
        self.calls += 1
        return {"wall_s": self.first if self.calls == 1 else self.others, "tokens": 7}

    def clock(self):
        return self.calls * self.takes


def test_short_calls_are_repeated_and_the_first_is_not_counted():
    work = Workload(takes=0.5, first=100.0, others=2.0)
    figures = turn(work, 10.0, work.clock)
    assert (figures["wall_s"], figures["tokens"]) == (2.0, 7)
    assert (figures["calls"], work.calls) == (20, 21)


def test_call_that_fills_a_turn_is_made_once():
    work = Workload(takes=12.0, first=3.0, others=1.0)
    assert turn(work, 10.0, work.clock)["wall_s"] == 3.0
    assert work.calls == 1


def test_figures_are_means_of_all_calls_of_a_turn():
    work = Workload(takes=4.0, first=4.0, others=1.0)
    # The first takes more than a tenth of the turn: it counts.
    figures = turn(work, 10.0, work.clock)
    assert figures["wall_s"] == pytest.approx((4.0 + 1.0 + 1.0) / 3)
    assert figures["calls"] == work.calls == 3


def test_without_a_length_a_turn_is_one_call():
    work = Workload(takes=0.0, first=1.0, others=5.0)
    assert turn(work, 0.0, work.clock)["calls"] == work.calls == 1
