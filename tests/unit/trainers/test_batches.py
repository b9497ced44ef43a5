"""Batches in random order: each item in its turn, and the same batches after an interruption."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import CheckpointError
from tutelage.trainers.batches import Shuffled
from tutelage.trainers.reward import ComparedAnswers, LabelledPair, Minibatches


def shuffled(items=range(10), size=4, steps=10, seed=0) -> Shuffled:
    return Shuffled(items, size, steps, torch.Generator().manual_seed(seed))


def test_each_item_comes_before_any_comes_again():
    batches = list(shuffled())
    assert [len(batch) for batch in batches] == [4] * 10
    drawn = [item for batch in batches for item in batch]
    for start in range(0, 40, 10):
        assert sorted(drawn[start : start + 10]) == list(range(10))
    assert drawn[:10] != drawn[10:20]
    assert list(shuffled()) == batches


@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 12))
def test_batches_go_on_from_a_saved_state(items, size, done):
    whole = list(shuffled(range(items), size, 12))
    first = shuffled(range(items), size, 12)
    assert [next(iter(first)) for _ in range(done)] == whole[:done]
    second = shuffled(range(items), size, 12, seed=1)
    second.load_state_dict(first.state_dict())
    assert second.taken == done
    assert list(second) == whole[done:]


@given(st.integers(1, 9), st.integers(0, 8))
def test_minibatches_of_pairs_go_on_from_a_saved_state(size, done):
    groups = [
        ComparedAnswers(((i,), (i, i)), (LabelledPair(0, 1, 1.0),) * (i % 3 + 1)) for i in range(6)
    ]

    def fresh() -> Minibatches:
        return Minibatches(groups, size, 8, torch.Generator().manual_seed(0))

    whole, first, second = list(fresh()), fresh(), fresh()
    for _ in range(done):
        next(iter(first))
    second.load_state_dict(first.state_dict())
    assert list(second) == whole[done:]


def test_state_does_not_change_with_what_it_was_taken_of():
    batches = shuffled()
    next(iter(batches))
    state = batches.state_dict()
    expected = list(batches)
    again = shuffled()
    again.load_state_dict(state)
    assert list(again) == expected


def test_state_of_other_data_is_refused():
    with pytest.raises(CheckpointError, match="made with 10 rows of data and there are 11"):
        shuffled(range(11)).load_state_dict(shuffled().state_dict())
