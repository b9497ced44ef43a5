"""Mathematical equality, in a process that can be ended."""

import threading
import time

import pytest

from tutelage.records import ScoreStatus
from tutelage.rewards.verifiers.maths import Maths

pytest.importorskip("math_verify")


@pytest.fixture(scope="module")
def maths() -> Maths:
    # The tests may share their machine with much else.
    return Maths(seconds=20.0)


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("1/2", "The answer is $0.5$."),
        ("$\\frac{1}{2}$", "so we get $\\boxed{\\frac{2}{4}}$"),
        ("$x^2 + 2x + 1$", "$(x+1)^2$"),
        ("${1, 2, 3}$", "$\\{3, 2, 1\\}$"),
        ("$(1, 2]$", "$(1,2]$"),
        ("72", "#### 72"),
        ("$\\sqrt{8}$", "$2\\sqrt{2}$"),
    ],
)
def test_equal_mathematics_is_accepted(maths, reference, text, asked):
    assert maths.verify(asked(reference), text).value == 1.0


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("1/2", "$0.49$"),
        ("$x^2 + 2x + 1$", "$(x-1)^2$"),
        ("$(1, 2]$", "$[1,2]$"),
        ("72", "no idea"),
        ("72", ""),
        ("72", "$\\frac{1}{$"),
        ("72", "\\boxed{" * 500),
        ("72", "9" * 10_000),
        ("72", "__import__('os').getpid()"),
    ],
    ids=lambda text: text[:16],
)
def test_unequal_mathematics_is_not(maths, reference, text, asked):
    score = maths.verify(asked(reference), text)
    assert score.value == 0.0 or score.status is ScoreStatus.TIMEOUT


def test_without_a_reference_nothing_can_be_said(maths, asked):
    assert maths.verify(asked(), "$1$").status is ScoreStatus.UNSCORABLE


def test_a_comparison_that_does_not_end_is_ended_and_the_next_one_works(asked):
    impatient = Maths(seconds=0.05)
    impatient.verify(asked("1"), "1")  # starts the process
    start = time.monotonic()
    tower = impatient.verify(asked("1"), "$9^{9^{9^{9^{9}}}}$")
    # An interpreter that is ended is waited for; the machine may be busy.
    assert time.monotonic() - start < 30
    assert tower.status is ScoreStatus.TIMEOUT or tower.value == 0.0
    impatient.seconds = 20.0
    assert impatient.verify(asked("1"), "$1$").value == 1.0


def test_it_works_in_threads(maths, asked):
    values = []
    threads = [
        threading.Thread(target=lambda: values.append(maths.verify(asked("1/2"), "$0.5$").value))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [1.0] * 3
