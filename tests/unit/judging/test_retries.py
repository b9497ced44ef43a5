"""When a service is asked again, and when no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.judging.retries import CircuitBreaker, backoff


def test_pauses_double_up_to_the_longest():
    assert list(backoff(5, 0.5, 3.0, draw=lambda: 1.0)) == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert list(backoff(3, 0.5, 3.0, draw=lambda: 0.0)) == [0.25, 0.5, 1.0]
    assert list(backoff(0, 0.5, 3.0)) == []


@given(st.integers(0, 12), st.floats(0.01, 10), st.floats(0.01, 60))
def test_jitter_takes_off_half_a_pause_at_most(retries, first, longest):
    pauses = list(backoff(retries, first, longest))
    whole = [min(longest, first * 2**k) for k in range(retries)]
    assert all(w / 2 <= pause < w for w, pause in zip(whole, pauses, strict=True))


@pytest.fixture
def breaker():
    now = [100.0]
    made = CircuitBreaker(3, 10.0, clock=lambda: now[0])
    return made, now


def test_breaker_opens_after_failures_in_a_row(breaker):
    made, _ = breaker
    for succeeded in (False, False, True, False, False):
        assert made.allow()
        made.record(succeeded)
    assert not made.open
    made.record(False)
    assert made.open
    assert not made.allow()


def test_open_breaker_allows_one_trial_at_a_time(breaker):
    made, now = breaker
    for _ in range(3):
        made.record(False)
    now[0] += 9.9
    assert not made.allow()
    now[0] += 0.1
    assert [made.allow(), made.allow()] == [True, False]
    made.record(False)
    now[0] += 9.9
    assert not made.allow()
    now[0] += 0.1
    assert made.allow()
    made.record(True)
    assert not made.open
    assert [made.allow(), made.allow()] == [True, True]


def test_trial_that_is_never_reported_does_not_close_the_way_for_good(breaker):
    made, now = breaker
    for _ in range(3):
        made.record(False)
    now[0] += 10
    assert made.allow()
    now[0] += 10
    assert made.allow()
