"""Rewards of whole conversations, out of a reward that scores one answer.

    completion of several turns ──exchanges──> (conversation so far, answer) ──reward──> score
    Score(value, turns)  <── what reward and environment gave for each turn, added up

A reward sees the conversation so far as the prompt's messages and the turn's answer as the
completion, so that every reward of single answers serves conversations too.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from tutelage.records import Completion, Prompt, Score, ScoreStatus, exchanges
from tutelage.rewards.reward import Reward

__all__ = ["ConversationReward", "answers_of"]


def answers_of(prompt: Prompt, completion: Completion) -> list[tuple[Prompt, Completion]]:
    """Each answer as a completion of its own, with the conversation so far as its prompt."""
    if not completion.turns:
        return [(prompt, completion)]
    return [
        (
            before,
            replace(
                completion,
                tokens=completion.tokens[turn.start : turn.end],
                logprobs=completion.logprobs[turn.start : turn.end],
                text=turn.text,
                stop=turn.stop,
                turns=(),
            ),
        )
        for before, turn in exchanges(prompt, completion.turns)
    ]


class ConversationReward:
    """The sum over a conversation's turns, each earned by its own answer."""

    def __init__(self, reward: Reward | None, scored: Literal["all", "last"] = "all") -> None:
        """Takes a reward of single answers.

        Args:
            reward: of an answer; without one, what the environments give is all there is.
            scored: which answers it scores, all of them or each conversation's last.
        """
        self.reward, self.scored = reward, scored

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """One score per conversation; one answer that cannot be scored fails it."""
        answers = [answers_of(p, c) for p, c in zip(prompts, completions, strict=True)]
        asked = answers if self.scored == "all" else [each[-1:] for each in answers]
        flat = [answer for each in asked for answer in each]
        scores = iter(
            [Score(0.0)] * len(flat)
            if self.reward is None
            else self.reward([prompt for prompt, _ in flat], [answer for _, answer in flat])
        )
        return [
            _add_up(completion, [next(scores) for _ in each])
            for completion, each in zip(completions, asked, strict=True)
        ]


def _add_up(completion: Completion, scores: Sequence[Score]) -> Score:
    """The scores of the last answers, and the environment's rewards of all."""
    if completion.failure:
        return Score.failed(ScoreStatus.ERROR, completion.failure)
    failed = next((score for score in scores if not score.ok), None)
    if failed is not None:
        return Score.failed(failed.status, failed.notes)
    given = [turn.reward for turn in completion.turns] or [0.0]
    odd = [reward for reward in given if not math.isfinite(reward)]
    if odd:
        return Score.failed(ScoreStatus.NOT_FINITE, f"the environment's reward is {odd[0]}")
    unscored = len(given) - len(scores)
    turns = [*given[:unscored]]
    turns += [g + score.value for g, score in zip(given[unscored:], scores, strict=True)]
    parts = {name: 0.0 for score in scores for name in score.parts}
    for name in parts:
        parts[name] = sum(score.parts.get(name, 0.0) for score in scores)
    parts["environment"] = sum(given)
    measures = {name: 0.0 for score in scores for name in score.measures}
    for name in measures:
        known = [score.measures[name] for score in scores if name in score.measures]
        measures[name] = sum(known) / len(known)
    return Score(sum(turns), parts, turns=tuple(turns), measures=measures)
