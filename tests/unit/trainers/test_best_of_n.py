"""Best of n at sampling time."""

import math

import pytest

from tutelage.generation import FakeEngine, Sampling
from tutelage.records import EncodedPrompt, Message, Prompt, Score, ScoreStatus
from tutelage.trainers.best_of_n import BestOfNEngine, best_scored

FAILED = Score.failed(ScoreStatus.ERROR, "no")
PROMPTS = [EncodedPrompt(Prompt(name, (Message("user", name),)), (5,)) for name in ("p", "q")]
SAMPLING = Sampling(frozenset({2}), max_tokens=3)


def drawn_numbers() -> FakeEngine:
    """The third completion of a prompt is token 13 and a stop, the fourth 14, and so on."""
    return FakeEngine(lambda prompt, sample: [10 + sample, 2])


def test_highest_usable_score_wins():
    assert best_scored([Score(1.0), Score(3.0), FAILED, Score(2.0)]) == 1
    assert best_scored([Score(3.0), Score(3.0)]) == 0
    assert best_scored([FAILED, Score(-math.inf)]) == 1
    assert best_scored([FAILED, FAILED]) is None
    assert best_scored([]) is None


def test_each_completion_is_the_best_of_n_of_its_own():
    """Six candidates for each prompt in two groups of three; near 14 is good for p, low for q."""

    def reward(prompts, completions):
        return [
            Score(-abs(c.tokens[0] - 14) if p.id == "p" else -c.tokens[0])
            for p, c in zip(prompts, completions, strict=True)
        ]

    engine = BestOfNEngine(drawn_numbers(), reward, 3)
    sampling = Sampling(frozenset({2}), max_tokens=3, samples_per_prompt=2)
    found = engine.generate(PROMPTS, sampling)
    assert [(c.prompt_id, c.tokens[0]) for c in found] == [
        ("p", 12),
        ("p", 14),
        ("q", 10),
        ("q", 13),
    ]


def test_what_was_not_chosen_is_known_and_counted():
    engine = BestOfNEngine(drawn_numbers(), lambda p, c: [Score(x.tokens[0]) for x in c], 3)
    found = engine.choose(PROMPTS, SAMPLING)
    assert [each.best.tokens for each in found] == [(12, 2)] * 2
    assert [[c.tokens[0] for c in each.candidates] for each in found] == [[10, 11, 12]] * 2
    assert [each.num_tokens for each in found] == [6, 6]


def test_best_of_one_is_the_engine_itself():
    plain = drawn_numbers().generate(PROMPTS, SAMPLING)
    engine = BestOfNEngine(drawn_numbers(), lambda p, c: [Score(0.0)] * len(c), 1)
    assert engine.generate(PROMPTS, SAMPLING) == plain


def test_without_any_score_the_first_is_kept():
    engine = BestOfNEngine(drawn_numbers(), lambda p, c: [Score(math.nan)] * len(c), 4)
    assert [c.tokens[0] for c in engine.generate(PROMPTS, SAMPLING)] == [10, 10]


def test_weights_reach_the_engine(tiny_causal_lm):
    from tutelage.models import Policy

    inner = drawn_numbers()
    BestOfNEngine(inner, lambda p, c: [], 2).load_weights(Policy(tiny_causal_lm()))
    assert inner.version == 1


def test_best_of_none_is_refused():
    with pytest.raises(ValueError, match="best of 0"):
        BestOfNEngine(drawn_numbers(), lambda p, c: [], 0)
