"""Online DPO: which completions meet, what the labels are, and that the policy follows them."""

import json
import math
from collections.abc import Callable, Sequence

import pytest
import torch

from tutelage.config import BatchConfig, DPOConfig, OnlineDPOConfig, OptimizerConfig
from tutelage.errors import RewardError
from tutelage.generation import FakeEngine, LocalEngine, Sampling
from tutelage.models import Policy
from tutelage.records import EncodedPrompt, Message, Prompt, Score, ScoreStatus
from tutelage.trainers.finite import FiniteGuard
from tutelage.trainers.learner import Learner
from tutelage.trainers.online_dpo import AskedPairs, JudgedPair, ScoredPairs, online_dpo
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.pairs import AnswerPair, measure_pairs, precompute_reference

STOP = 2
FAILED = Score.failed(ScoreStatus.ERROR, "no")


def prompts_of(count: int) -> list[EncodedPrompt]:
    return [
        EncodedPrompt(Prompt(f"p{i}", (Message("user", f"{i}"),)), (5 + i, 6)) for i in range(count)
    ]


def scores_of(*values: float | Score):
    """A reward that gives these scores, one after the other."""
    return lambda prompts, completions: [
        each if isinstance(each, Score) else Score(each) for each in values
    ]


def tokens_of(*tokens: int) -> FakeEngine:
    """Completions of one token and the stop, one after the other for each prompt."""
    return FakeEngine(lambda prompt, sample: [tokens[sample], STOP])


def judged(judge, *tokens: int, prompts: int = 1):
    asked = prompts_of(prompts)
    sampling = Sampling(frozenset({STOP}), samples_per_prompt=len(tokens))
    completions = tokens_of(*tokens).generate(asked, sampling)
    return judge([p for p in asked for _ in tokens], completions)


def scored(reward, **settings) -> ScoredPairs:
    return ScoredPairs(reward, config_of(**settings))


def config_of(**settings) -> OnlineDPOConfig:
    """Settings of online DPO that sample as few prompts as the tests do."""
    return OnlineDPOConfig.model_validate({"batch": {"minibatch": 1}, **settings})


def test_best_meets_worst():
    pairs, scores = judged(scored(scores_of(1, 5, -2, 3, 0, 0, 7, 7)), 10, 11, 12, 13, prompts=2)
    assert pairs == [JudgedPair(1, 2, 1.0), JudgedPair(6, 4, 1.0)]
    assert [score.value for score in scores] == [1, 5, -2, 3, 0, 0, 7, 7]


def test_soft_label_is_the_bradley_terry_probability():
    judge = scored(scores_of(1.0, 3.0), label="soft", label_temperature=4.0)
    ((a, b, p_a),) = judged(judge, 10, 11)[0]
    assert (a, b) == (1, 0)
    assert p_a == pytest.approx(1 / (1 + math.exp(-0.5)))
    vast = scored(scores_of(1e30, -1e30), label="soft")
    assert judged(vast, 10, 11)[0] == [JudgedPair(0, 1, 1.0)]


def test_prompts_that_say_nothing_make_no_pair():
    assert judged(scored(scores_of(1.0, 1.0)), 10, 11)[0] == []
    assert judged(scored(scores_of(2.0, 1.0)), 10, 10)[0] == []
    assert judged(scored(scores_of(2.0, FAILED), max_failed_share=0.5), 10, 11)[0] == []


def test_failed_scores_stand_in_no_pair():
    judge = scored(scores_of(2.0, FAILED, 1.0, math.nan), max_failed_share=0.5)
    pairs, scores = judged(judge, 10, 11, 12, 13)
    assert pairs == [JudgedPair(0, 2, 1.0)]
    assert [score.ok for score in scores] == [True, False, True, False]


def cut_off(tokens: int) -> FakeEngine:
    """Two completions for each prompt: one ends, the other is cut off by the limit."""
    return FakeEngine(lambda prompt, sample: [10, STOP] if sample else [11] * tokens)


@pytest.mark.parametrize(
    ("truncation", "pairs"),
    [
        # As the reward says it: the one that was cut off is better.
        ({"mode": "keep"}, [(0, 1)]),
        ({"mode": "penalise", "value": -3.0}, [(1, 0)]),
        ({"mode": "replace", "value": 1.5}, [(0, 1)]),
        ({"mode": "replace", "value": 0.5}, [(1, 0)]),
        ({"mode": "soft", "value": -3.0, "buffer": 2}, [(1, 0)]),
        ({"mode": "drop"}, []),
    ],
)
def test_what_is_cut_off_counts_as_truncation_says(truncation, pairs):
    asked = prompts_of(1)
    completions = cut_off(4).generate(asked, Sampling(frozenset({STOP}), 4, 1.0, 2))
    sampling = {"max_tokens": 4, "samples_per_prompt": 2}
    judge = scored(scores_of(2.0, 1.0), truncation=truncation, sampling=sampling)
    found, scores = judge(asked * 2, completions)
    assert [pair[:2] for pair in found] == pairs
    assert [score.value for score in scores] == [2.0, 1.0]


def test_dropped_completions_stand_in_no_pair_of_a_judge_either(rounds):
    def judge(comparisons):
        return [0.25] * len(comparisons)

    _, (step,) = rounds(AskedPairs(judge), engine=cut_off(6), truncation={"mode": "drop"})
    assert step.metrics["train/skipped"] == 1


def test_round_reports_what_other_learners_report(rounds):
    _, (step,) = rounds(scored(low_ids), loss={"beta": 0.3})
    expected = [row.value for row in step.scores]
    assert step.metrics["reward/score"] == pytest.approx(sum(expected) / len(expected))
    assert step.metrics["kl/coefficient"] == 0.3
    lengths = [len(row.tokens) for row in step.completions]
    assert step.metrics["response/length"] == pytest.approx(sum(lengths) / len(lengths))
    assert step.num_tokens == sum(lengths)
    assert step.metrics["sampler/gap_max"] < 1e-4
    assert not [key for key in step.metrics if key.startswith(("advantage/", "value/"))]


def test_too_many_failed_scores_end_the_training():
    with pytest.raises(RewardError, match="1 of 2 completions could not be scored"):
        judged(scored(scores_of(2.0, FAILED)), 10, 11)


def test_a_judge_is_asked_about_every_two_completions_in_both_orders():
    asked = []

    def judge(comparisons):
        asked.extend((each.a, each.b) for each in comparisons)
        return [0.25 if each.a == "10 2" else 0.65 for each in comparisons]

    pairs, scores = judged(AskedPairs(judge), 10, 11, 12, 12, 13)
    assert asked == [("10 2", "11 2"), ("11 2", "10 2")]
    # (0.25 + 1 - 0.65) / 2
    assert pairs == [JudgedPair(0, 1, pytest.approx(0.3))]
    assert [score.value for score in scores[:2]] == pytest.approx([0.3, 0.7])
    assert not any(score.ok for score in scores[2:])


def test_pairs_of_which_the_judge_cannot_tell_are_left_out():
    def judge(comparisons):
        return [None if each.a == "10 2" else 0.9 for each in comparisons]

    pairs, scores = judged(AskedPairs(judge), 10, 11, 12, 13)
    assert [pair[:2] for pair in pairs] == [(2, 3)]
    assert [score.ok for score in scores] == [False, False, True, True]


@pytest.fixture
def rounds(tiny_causal_lm, tiny_tokenizer) -> Callable:
    """`rounds(judge, 2)`: policy and steps of that many rounds over four prompts."""

    def run(
        judge,
        count: int = 1,
        *,
        engine=None,
        samples: int = 2,
        learning_rate: float = 1e-3,
        guard: FiniteGuard | None = None,
        start: int = 0,
        temperature: float = 1.0,
        reference: Policy | None = None,
        **settings,
    ):
        policy = Policy(tiny_causal_lm(), temperature=temperature)
        config = OptimizerConfig(
            learning_rate=learning_rate, schedule="constant", max_gradient_norm=1e9
        )
        learner = Learner(
            {"dpo": Optimizer(policy.model, config, 100)},
            BatchConfig(),
            torch.Generator().manual_seed(0),
            guard=guard or FiniteGuard(),
        )
        drawn = engine or LocalEngine(policy, tiny_tokenizer, torch.Generator().manual_seed(0))
        steps = online_dpo(
            policy,
            reference or policy.frozen_copy(),
            drawn,
            judge,
            learner,
            [prompts_of(4)] * count,
            Sampling(frozenset({STOP}), 6, temperature, samples),
            config_of(**settings),
            start=start,
        )
        return policy, list(steps)

    return run


def low_ids(prompts: Sequence[Prompt], completions) -> list[Score]:
    """The share of tokens below 30."""
    return [Score(sum(t < 30 for t in c.tokens) / len(c.tokens)) for c in completions]


def test_first_round_starts_at_the_reference(rounds):
    _, (step,) = rounds(scored(low_ids), temperature=0.7)
    assert step.metrics["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert step.metrics["kl/sequence"] == pytest.approx(0, abs=1e-5)
    assert step.metrics["dpo/margin"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_round_is_a_step_of_dpo_on_its_pairs(rounds, tiny_causal_lm, seed):
    """The same loss as offline, whether the reference is the policy's start or another model."""
    reference = Policy(tiny_causal_lm(seed=seed))
    _, (step,) = rounds(
        scored(low_ids), learning_rate=1e-9, loss={"beta": 0.3}, reference=reference
    )
    pairs = [
        AnswerPair(
            *(
                (
                    (*step.prompts[row].tokens, *step.completions[row].tokens),
                    (0.0, 0.0) + (1.0,) * len(step.completions[row].tokens),
                )
                for row in (a, b)
            ),
            p_a,
        )
        for a, b, p_a in scored(low_ids)(step.prompts, step.completions)[0]
    ]
    policy = Policy(tiny_causal_lm())
    pairs = precompute_reference(reference, pairs)
    offline = measure_pairs(policy, pairs, DPOConfig(beta=0.3))
    assert offline["dpo/chosen_logprob"] == pytest.approx(
        step.metrics["dpo/chosen_logprob"], rel=1e-5
    )
    assert offline["loss"] == pytest.approx(step.metrics["loss"], abs=1e-5)
    assert (seed == 0) == (abs(offline["loss"] - math.log(2)) < 1e-5)


def test_reward_rises_and_the_policy_leaves_its_reference(rounds):
    _, steps = rounds(
        scored(low_ids), 25, samples=4, learning_rate=2e-3, loss={"beta": 0.05}, start=3
    )
    assert [step.index for step in steps] == list(range(3, 28))
    first, last = (
        sum(step.metrics["reward/score"] for step in part) / 5 for part in (steps[:5], steps[-5:])
    )
    assert last > first + 0.2
    assert steps[-1].metrics["kl/sequence"] > 0.5


def test_new_weights_reach_the_sampler(rounds):
    _, steps = rounds(scored(lambda p, c: [Score(t.tokens[0]) for t in c]), 3,
                      engine=tokens_of(10, 11))  # fmt: skip
    assert [step.completions[0].policy_version for step in steps] == [0, 1, 2]


def test_round_without_pairs_moves_nothing(rounds, tiny_causal_lm):
    policy, (step,) = rounds(scored(lambda p, c: [Score(1.0)] * len(c)))
    assert step.metrics["train/skipped"] == 1
    assert step.metrics["dpo/paired"] == 0
    start = tiny_causal_lm().state_dict()
    assert all(weight.equal(start[name]) for name, weight in policy.model.state_dict().items())


def test_scores_that_are_not_finite_are_shown(rounds, tmp_path):
    def reward(prompts, completions):
        return [Score(math.inf if i == 5 else float(i)) for i in range(len(completions))]

    _, (step,) = rounds(scored(reward), guard=FiniteGuard(tmp_path, notify=lambda text: None))
    assert step.metrics["dpo/paired"] == 0.75
    (file,) = tmp_path.rglob("*.json")
    assert [row["row"] for row in json.loads(file.read_text())["rows"]] == [5]


def test_one_completion_is_no_pair(rounds):
    with pytest.raises(ValueError, match="samples_per_prompt 1"):
        rounds(scored(low_ids), samples=1)
