"""What is read off answers: hand-counted shares, and an estimator held against simulation."""

import math

import numpy as np
import pytest

from tutelage.records import Completion, StopReason
from tutelage.safety.guard import Measurement, describe, disagreement
from tutelage.safety.guard.measurement import identical_openings, repetition


def answer(text: str, logprobs: tuple[float, ...] = (-1.0,), ended: bool = True) -> Completion:
    stop = StopReason.STOP_TOKEN if ended else StopReason.LENGTH
    return Completion("p", tuple(range(len(logprobs))), logprobs, text, stop)


def test_repetition_is_the_share_of_triples_that_stood_before():
    # Triples: a-b-c, b-c-a, c-a-b, a-b-c again.
    assert repetition("a b c A B c") == pytest.approx(1 / 4)
    assert repetition("one two three four") == 0.0
    assert repetition("so so") == 0.0
    assert repetition("no no no no no") == pytest.approx(2 / 3)


def test_openings_have_the_mean_of_all_pairs():
    texts = ["we can help you", "we can help him", "No that is", "no that is all", "yes"]
    pairs = [(a, b) for i, a in enumerate(texts) for b in texts[i + 1 :]]
    same = [a.lower().split()[:3] == b.lower().split()[:3] for a, b in pairs]
    assert identical_openings(texts).mean() == pytest.approx(sum(same) / len(pairs))
    assert identical_openings(["alone"]).tolist() == [0.0]


def test_openings_have_the_standard_error_of_their_mean():
    """By simulation; values that were the shares themselves would claim half of it."""
    rng = np.random.default_rng(0)
    openings = [f"{kind} it is" for kind in "aabc"]
    draws = [
        identical_openings([openings[i] for i in rng.integers(4, size=80)]) for _ in range(200)
    ]
    true = np.std([draw.mean() for draw in draws])
    claimed = np.mean([draw.std(ddof=1) / math.sqrt(80) for draw in draws])
    # A standard error over 200 draws is known to 5 %; the estimator's own bias is some more.
    assert claimed == pytest.approx(true, rel=0.15)


def test_description_counts_tokens_endings_and_surprisal():
    completions = [answer("yes it is", (-1.0, -3.0)), answer("", (-0.5,), ended=False)]
    columns = describe(completions)
    assert columns["length"].tolist() == [2.0, 1.0]
    assert columns["ended"].tolist() == [1.0, 0.0]
    assert columns["entropy"].tolist() == [2.0, 0.5]
    assert columns["repetition"].tolist() == [0.0, 0.0]


def test_disagreement_is_the_standard_deviation_between_models():
    found = disagreement([np.array([1.0, 0.0]), np.array([3.0, 0.0])])
    assert found.tolist() == [1.0, 0.0]


def test_measurement_comes_back_from_json_with_its_gaps():
    given = Measurement(4, {"kl": np.array([1.0, math.nan])}, undone=True)
    back = Measurement.from_json(given.to_json())
    assert (back.step, back.undone) == (4, True)
    np.testing.assert_array_equal(back.columns["kl"], given.columns["kl"])
    assert back.mean("kl") == 1.0
