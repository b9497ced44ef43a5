"""Dynamic sampling: which groups a round learns from, when it stops drawing, what it costs.

Prompts are named p0, p1 ...; the reward tells the completions of a prompt apart only where the
prompt's number is in a given set, so that what is kept can be written down by hand.
"""

from collections.abc import Callable, Sequence

import pytest
import torch

from tutelage.config import GRPOConfig
from tutelage.records import EncodedPrompt, Message, Prompt, Score, ScoreStatus
from tutelage.trainers.batches import Shuffled
from tutelage.trainers.grpo import grpo
from tutelage.trainers.round import RoundStep

SAMPLES, WANTED = 2, 3


def prompt(number: int) -> EncodedPrompt:
    tokens = tuple(8 + (number + k) % 40 for k in range(1 + number % 5))
    return EncodedPrompt(Prompt(f"p{number}", (Message("user", f"question {number}"),)), tokens)


def number(asked: Prompt) -> int:
    return int(asked.id[1:])


def telling(*numbers: int, failed: Sequence[int] = ()):
    """Scores completions by their tokens where the prompt's number is among these, others 1.

    The first completion of a prompt in `failed` cannot be scored.
    """

    def reward(prompts, completions):
        return [
            Score.failed(ScoreStatus.ERROR, "no")
            if number(asked) in failed and len(completion.tokens) == 2
            else Score(float(sum(completion.tokens)) if number(asked) in numbers else 1.0)
            for asked, completion in zip(prompts, completions, strict=True)
        ]

    return reward


def script(asked: EncodedPrompt, sample: int) -> list[int]:
    """One token and the stop, and for the second completion one to three tokens more."""
    more = sample * (1 + len(asked.tokens) % 3)
    return [3 + (number(asked.prompt) + k) % 60 for k in range(1 + more)] + [2]


@pytest.fixture
def rounds(bench) -> Callable[..., tuple[list[RoundStep], list[torch.Tensor]]]:
    """`rounds(reward, [[0, 1, 2]], [[3, 4, 5]])`: steps and gradients of rounds with extras."""

    def run(reward, batches, extras=(), **settings):
        settings = {"extra_batches": 0, **settings}
        minibatch = {"minibatch": WANTED * SAMPLES}
        parts = bench(
            script=script,
            reward=reward,
            train=("policy",),
            still=True,
            sampling={"max_tokens": 8, "samples_per_prompt": SAMPLES},
            batch=minibatch,
        )
        config = GRPOConfig.model_validate(
            {
                "prompts_per_step": WANTED,
                "sampling": {"max_tokens": 8, "samples_per_prompt": SAMPLES},
                "batch": minibatch,
                "policy": {"learning_rate": 1e-3, "max_gradient_norm": 1e9},
                "truncation": {"mode": "keep"},
                **settings,
            }
        )
        left = iter(extras)
        steps = grpo(
            parts.policy,
            parts.reference,
            parts.engine,
            parts.reward,
            parts.learner,
            [[prompt(i) for i in batch] for batch in batches],
            parts.sampling,
            config,
            more=lambda: [prompt(i) for i in next(left)],
        )
        found = list(steps)
        assert next(left, None) is None, "every extra batch that is given is to be drawn"
        return found, parts.gradients("policy")

    return run


def learned(step: RoundStep) -> list[int]:
    return [number(each.prompt) for each in step.prompts[::SAMPLES]]


def thrown(step: RoundStep) -> list[str]:
    return [each.prompt_id for each in step.thrown]


def test_draws_until_enough_groups_differ_and_keeps_those(rounds):
    (step,), _ = rounds(telling(1, 3, 5, 6), [[0, 1, 2]], [[3, 4, 5]], extra_batches=4)
    assert learned(step) == [1, 3, 5]
    assert thrown(step) == ["p0", "p0", "p2", "p2", "p4", "p4"]
    assert step.metrics["group/thrown"] == 3 / 6
    assert step.metrics["group/no_signal"] == 3 / 6


def test_a_round_that_is_rich_enough_draws_no_more(rounds):
    (step,), _ = rounds(telling(0, 1, 2), [[0, 1, 2]], extra_batches=4)
    assert (learned(step), thrown(step)) == ([0, 1, 2], [])
    assert step.metrics["group/thrown"] == 0


def test_what_is_over_is_thrown_away_too(rounds):
    (step,), _ = rounds(telling(0, 1, 3, 4, 5), [[0, 1, 2]], [[3, 4, 5]], extra_batches=1)
    assert learned(step) == [0, 1, 3]
    assert thrown(step) == ["p2", "p2", "p4", "p4", "p5", "p5"]
    assert step.metrics["group/no_signal"] == 1 / 6


def test_batches_are_bounded_and_the_round_is_smaller_then(rounds):
    (step,), _ = rounds(telling(4), [[0, 1, 2]], [[3, 4, 5], [6, 7, 8]], extra_batches=2)
    assert learned(step) == [4]
    assert step.metrics["group/thrown"] == 8 / 9


def test_a_round_of_nothing_is_its_first_batch(rounds):
    (step,), gradients = rounds(
        telling(), [[0, 1, 2]], [[3, 4, 5]], extra_batches=1, kl={"coefficient": 0}
    )
    assert learned(step) == [0, 1, 2]
    assert step.metrics["group/no_signal"] == 1
    assert all(not gradient.any() for gradient in gradients)


def test_off_takes_every_group_as_it_comes(rounds):
    (step,), _ = rounds(telling(1), [[0, 1, 2]])
    assert learned(step) == [0, 1, 2]
    assert step.metrics["group/thrown"] == 0
    assert step.metrics["group/no_signal"] == pytest.approx(2 / 3)


def test_gradient_is_that_of_a_round_of_the_kept_prompts(rounds):
    reward = telling(1, 3, 5)
    _, dynamic = rounds(reward, [[0, 1, 2]], [[3, 4, 5]], extra_batches=1)
    _, plain = rounds(reward, [[1, 3, 5]])
    assert len(dynamic) == len(plain) > 0
    for found, expected in zip(dynamic, plain, strict=True):
        assert found.any()
        torch.testing.assert_close(found, expected)


def test_a_group_with_one_usable_score_is_drawn_again(rounds):
    """One alone has nothing to be compared with."""
    reward = telling(0, 1, 2, 3, 4, 5, failed=(0,))
    (step,), _ = rounds(reward, [[0, 1, 2]], [[3, 4, 5]], extra_batches=1)
    assert learned(step) == [1, 2, 3]
    assert step.metrics["reward/failed"] == pytest.approx(1 / 12)


def test_all_that_was_drawn_is_paid_and_scored(rounds):
    reward = telling(1, 3, 5)
    (step,), _ = rounds(reward, [[0, 1, 2]], [[3, 4, 5]], extra_batches=1)
    drawn = [(prompt(i), script(prompt(i), k)) for i in range(6) for k in range(SAMPLES)]
    assert step.num_tokens == sum(len(tokens) for _, tokens in drawn)
    scores = [float(sum(t)) if number(p.prompt) in (1, 3, 5) else 1.0 for p, t in drawn]
    assert step.metrics["reward/score"] == pytest.approx(sum(scores) / len(scores))


def test_extra_batches_are_not_counted_and_go_on_after_an_interruption():
    def fresh() -> Shuffled[int]:
        return Shuffled(range(10), 3, 4, torch.Generator().manual_seed(0))

    whole = fresh()
    rounds = [(next(iter(whole)), whole.extra()) for _ in range(4)]
    assert whole.taken == 4
    first, second = fresh(), fresh()
    for _ in range(2):
        next(iter(first))
        first.extra()
    second.load_state_dict(first.state_dict())
    assert [(next(iter(second)), second.extra()) for _ in range(2)] == rounds[2:]
    items = [i for pair in rounds for batch in pair for i in batch]
    assert sorted(items[:10]) == list(range(10))
