"""A curriculum draws what can be learned, starves nothing, and goes on exactly where it was."""

from collections import Counter

import pytest
import torch

from tutelage.config import CurriculumConfig, GRPOConfig
from tutelage.errors import CheckpointError, ConfigError
from tutelage.records import EncodedPrompt, Message, Prompt, Score, ScoreStatus
from tutelage.trainers.batches import Shuffled
from tutelage.trainers.curriculum import Curriculum, batches_of

FAILED = Score.failed(ScoreStatus.TIMEOUT, "the service did not answer")


def curriculum(items=range(6), size=2, steps=100, seed=0, **settings) -> Curriculum[int]:
    source = torch.Generator().manual_seed(seed)
    return Curriculum(items, size, steps, source, CurriculumConfig(**settings))


def scored(*values: float | None) -> list[Score]:
    return [FAILED if value is None else Score(value) for value in values]


def hear_all(batches: Curriculum[int], told: dict[int, tuple[float, ...]]) -> None:
    """A batch of all items, each scored as told."""
    batch = next(iter(batches))
    batches.hear(scored(*(value for item in batch for value in told[item])))


def test_running_statistics_by_hand():
    """Variances 1/4 and 3/16, then 0 and 1/4, each new one with weight 1 - 0.75."""
    batches = curriculum(range(2), 2, decay=0.75)
    told = [{0: (0, 1, 1, 0), 1: (0, 0, 0, 1)}, {0: (1, 1, 1, 1), 1: (0, 1, 0, 1)}]
    for values in told:
        hear_all(batches, values)
    assert batches.known.tolist() == pytest.approx([0.75 / 4, 0.75 * 3 / 16 + 0.25 / 4], abs=1e-12)
    assert batches.scores.tolist() == pytest.approx([0.75 * 0.5 + 0.25, 0.75 * 0.25 + 0.25 * 0.5])


def test_probabilities_are_in_proportion_to_the_variance():
    batches = curriculum(range(3), 3, uniform_share=0.3)
    hear_all(batches, {0: (0, 1, 0, 1), 1: (0, 0, 0, 1), 2: (1, 1, 1, 1)})
    expected = [0.1 + 0.7 * 4 / 7, 0.1 + 0.7 * 3 / 7, 0.1]
    assert batches.probabilities.tolist() == pytest.approx(expected)


def test_window_draws_all_inside_alike_and_none_outside_but_for_the_uniform_share():
    batches = curriculum(range(4), 4, by="window", low=0.25, high=0.5, pass_score=2.0)
    hear_all(batches, {0: (2, 1, 1, 1), 1: (3, 9, 0, 0), 2: (2, 2, 2, 0), 3: (1.9, 1, 0, 0)})
    assert batches.known.tolist() == pytest.approx([0.25, 0.5, 0.75, 0])
    assert batches.probabilities.tolist() == pytest.approx([0.45, 0.45, 0.05, 0.05])


def test_what_is_learnable_is_drawn_more_often():
    """One in ten prompts is learnable: its share of 2000 draws is that of its probability."""
    batches = curriculum(range(10), 1, 2010, uniform_share=0.5, decay=0.0)
    drawn: Counter[int] = Counter()
    for batch in batches:
        batches.hear(scored(*((0, 1) if batch == [3] else (1, 1))))
        if batches.taken > 10:
            drawn.update(batch)
    assert sum(drawn.values()) == 2000
    assert len(drawn) == 10
    # 0.05 + 0.5, and 0.05 for the others; three standard deviations are 0.033.
    assert drawn[3] / 2000 == pytest.approx(0.55, abs=0.035)


def test_batch_holds_no_item_twice():
    batches = curriculum(range(5), 4)
    for batch in batches:
        assert len(set(batch)) == 4
        batches.hear(scored(*(float(i % 2 and item == 1) for item in batch for i in range(2))))


def test_unusable_scores_do_not_count():
    whole, failed = curriculum(range(2), 2), curriculum(range(2), 2)
    hear_all(whole, {0: (0, 1), 1: (1, 1)})
    hear_all(failed, {0: (0, 1, None), 1: (None, 1, 1)})
    assert failed.known.equal(whole.known)
    assert failed.scores.equal(whole.scores)


def test_item_with_too_few_usable_scores_stays_as_it_was():
    batches = curriculum(range(2), 2)
    hear_all(batches, {0: (0, 1), 1: (None, 1)})
    assert batches.known.tolist() == pytest.approx([0.25, float("nan")], nan_ok=True)
    hear_all(batches, {0: (None, None), 1: (0, 1)})
    assert batches.known.tolist() == [0.25, 0.25]
    assert batches.scores.tolist() == [0.5, 0.75]


def test_metrics_by_hand():
    """Of four items two are seen, with scores 1 and 1/2; q = 0.05 + 0.8 of 0, 1/2, 1/4, 1/4."""
    batches = curriculum(range(4), 2, uniform_share=0.2)
    batch = next(iter(batches))
    found = batches.hear(scored(1, 1, 0, 1))
    q = [0.05, 0.45, 0.25, 0.25]
    assert found == pytest.approx(
        {
            "curriculum/seen": 0.5,
            "curriculum/score": 0.75,
            "curriculum/breadth": 1 / sum(x * x for x in q) / 4,
        }
    )
    assert batches.probabilities[batch].tolist() == pytest.approx(q[:2])


def play(batches: Curriculum[int], rounds: int) -> list[list[int]]:
    """The next batches, told scores that depend on item and round."""
    seen = []
    for batch in batches:
        batches.hear(
            scored(*((item * batches.taken + i) % 3 % 2 for item in batch for i in (0, 1)))
        )
        seen.append(batch)
        if len(seen) == rounds:
            break
    return seen


@pytest.mark.parametrize("by", ["learnability", "window"])
@pytest.mark.parametrize("done", [0, 1, 7, 20])
def test_batches_go_on_from_a_saved_state(by, done):
    whole = play(curriculum(steps=20, by=by), 20)
    first = curriculum(steps=20, by=by)
    assert (play(first, done) if done else []) == whole[:done]
    state = first.state_dict()
    play(first, 3)
    second = curriculum(steps=20, seed=1, by=by)
    second.load_state_dict(state)
    assert second.taken == done
    assert play(second, 99) == whole[done:]


def test_state_of_other_data_is_refused():
    with pytest.raises(CheckpointError, match="made with 6 rows of data and there are 7"):
        curriculum(range(7)).load_state_dict(curriculum().state_dict())


def test_more_items_in_a_batch_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="prompts_per_step is 7 and there are 6 prompts"):
        curriculum(size=7)


def test_prompts_come_by_the_curriculum_only_where_a_recipe_has_one():
    prompts = [EncodedPrompt(Prompt(str(i), (Message("user", "x"),)), (i,)) for i in range(9)]
    shape = {"steps": 3, "prompts_per_step": 8, "batch": {"minibatch": 8}}
    plain = GRPOConfig.model_validate(shape)
    chosen = GRPOConfig.model_validate({**shape, "curriculum": {"uniform_share": 0.5}})
    assert isinstance(batches_of(plain, prompts, torch.Generator()), Shuffled)
    batches = batches_of(chosen, prompts, torch.Generator())
    assert isinstance(batches, Curriculum)
    assert [len(batch) for batch in batches] == [8] * 3
