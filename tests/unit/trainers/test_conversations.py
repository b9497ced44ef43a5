"""Conversations in the loops: observations are read, and count for nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tutelage.config import SamplingConfig, TruncationConfig
from tutelage.environment import Reply
from tutelage.experience import Experience
from tutelage.generation import ConversationEngine
from tutelage.records import Message, Prompt, Score
from tutelage.rewards import ConversationReward
from tutelage.trainers.round import RoundStep, truncated_scores

LAM, BETA = 0.9, 0.3


class Chatter:
    """Asks on as often as its prompt's number says, and pays for each answer."""

    def reset(self, prompt: Prompt, seed: int) -> None:
        self.left = int(prompt.id[1:])

    def step(self, messages: Sequence[Message]) -> Reply:
        self.left -= 1
        more = [Message("user", "and then?"), Message("tool", "7")] if self.left >= 0 else []
        return Reply(more, reward=0.1 * len(messages))


@pytest.fixture
def conversing(bench, ragged_script, tiny_tokenizer) -> Callable[..., object]:
    """The PPO bench in conversation; p0 has one turn, p1 two, p2 and p3 three."""

    def build(**changes):
        changes = {
            "still": True,
            "lam": LAM,
            "value_lam": LAM,
            "kl": {"coefficient": BETA},
        } | changes
        world = bench(script=ragged_script, whiten_advantages=False, **changes)
        world.engine = ConversationEngine(
            world.engine, Chatter, tiny_tokenizer, max_turns=3, max_tokens=1000
        )
        world.reward = ConversationReward(world.reward)
        return world

    return build


def by_hand(rewards: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Schulman et al. 2016, eq. 16, as the sum that defines it."""
    deltas = rewards + np.append(values[1:], 0.0) - values
    return np.array(
        [sum(LAM**k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(deltas))]
    )


def rewards_of_turns(step: RoundStep, row: int) -> np.ndarray:
    """Penalties of the written tokens and, on the last of each turn, what it earned."""
    experience, completion = step.experience, step.completions[row]
    written = experience.response_mask[row]
    gap = experience.old_logprobs[row][written] - experience.ref_logprobs[row][written]
    rewards = -BETA * gap.double().numpy()
    lengths = [turn.end - turn.start for turn in completion.turns]
    rewards[np.cumsum(lengths) - 1] += step.scores[row].turns
    return rewards


def test_advantages_are_those_of_the_written_tokens_side_by_side(conversing):
    (step,) = conversing().run()
    assert [len(each.turns) for each in step.completions] == [1, 2, 3, 3]
    experience = step.experience
    for row, completion in enumerate(step.completions):
        written = experience.response_mask[row]
        assert int(written.sum()) == sum(completion.written)
        expected = by_hand(
            rewards_of_turns(step, row), experience.values[row][written].double().numpy()
        )
        np.testing.assert_allclose(experience.advantages[row][written], expected, atol=2e-5)
        assert (experience.advantages[row][~written] == 0).all()
        assert experience.returns[row][written][0].item() == pytest.approx(
            expected[0] + experience.values[row][written][0].item(), abs=1e-5
        )


def test_gradient_is_that_of_the_written_tokens_alone(conversing, relative_gap):
    """At ratio 1 it is -sum A_t grad log pi(y_t) over the number of written tokens."""
    world = conversing()
    (step,) = world.run()
    (found,) = world.gradients("policy")
    model, total, count = world.policy.model, torch.zeros(()), 0
    for row, completion in enumerate(step.completions):
        prompt = step.prompts[row].tokens
        ids = torch.tensor([[*prompt, *completion.tokens]])
        logprobs = model(ids).logits[0].log_softmax(-1)
        at = 0
        advantages = step.experience.advantages[row][step.experience.response_mask[row]]
        for place, (token, wrote) in enumerate(
            zip(completion.tokens, completion.written, strict=True), len(prompt)
        ):
            if wrote:
                total = total - advantages[at] * logprobs[place - 1, token]
                at += 1
        count += at
    model.zero_grad()
    (total / count).backward()
    expected = torch.cat([w.grad.flatten() for w in model.parameters() if w.requires_grad])
    assert relative_gap(found, expected) < 1e-5


class NaNOutside(nn.Module):
    """Says what another model says of the written tokens, and nonsense of all others."""

    def __init__(self, inner, name: str) -> None:
        super().__init__()
        self.inner, self.name = inner, name

    def __getattr__(self, name: str):
        if name in ("inner", "name"):
            return super().__getattr__(name)
        found = getattr(self.inner, name)
        return self._spoilt if name == self.name else found

    def _spoilt(self, rows: Experience, *rest: Tensor) -> Tensor:
        return torch.where(
            rows.response_mask, getattr(self.inner, self.name)(rows, *rest), torch.nan
        )


def test_nan_behind_observations_changes_no_bit(conversing):
    clean, spoilt = conversing(), conversing()
    spoilt.reference = NaNOutside(spoilt.reference, "logprobs")
    spoilt.critic = NaNOutside(spoilt.critic, "values")
    (before,), (after,) = clean.run(), spoilt.run()
    assert after.experience.values.isnan().any()
    assert after.experience.ref_logprobs.isnan().any()
    for name in ("policy", "value"):
        assert torch.equal(clean.gradients(name)[0], spoilt.gradients(name)[0])
    assert torch.equal(before.experience.advantages, after.experience.advantages)
    assert before.metrics == after.metrics


def test_what_the_other_side_says_has_no_loss(conversing):
    """Other observation tokens of the same length move log-probabilities, never what is counted."""
    world = conversing()
    (step,) = world.run()
    experience = step.experience
    tokens = torch.where(experience.response_mask, experience.tokens, 9)
    changed = replace(experience, tokens=torch.where(experience.attention_mask, tokens, 0))
    with torch.no_grad():
        logprobs = world.policy.logprobs(changed)
    assert (logprobs[~experience.response_mask] == 0).all()
    assert not torch.allclose(logprobs, experience.old_logprobs, atol=1e-3)


def test_one_turn_in_conversation_is_what_it_was_without(bench, ragged_script, tiny_tokenizer):
    alone = bench(script=ragged_script, still=True)
    talking = bench(script=ragged_script, still=True)
    talking.engine = ConversationEngine(
        talking.engine, Chatter, tiny_tokenizer, max_turns=1, max_tokens=1000
    )
    alone.run()
    talking.run()
    for name in ("policy", "value"):
        assert torch.equal(alone.gradients(name)[0], talking.gradients(name)[0])


@pytest.mark.parametrize(("mode", "second"), [("replace", -3.0), ("penalise", 1.0 - 3.0)])
def test_a_turn_that_was_cut_off_leaves_what_earlier_ones_earned(conversing, mode, second):
    (step,) = conversing().run()
    turns = tuple(Score(3.0, turns=(2.0, 1.0)) for _ in range(4))
    experience = Experience.collate(
        [each.tokens for each in step.prompts], step.completions, turns, pad=0
    )
    cut = replace(experience, truncated=torch.tensor([False, True, True, False]))
    scores = truncated_scores(cut, TruncationConfig(mode=mode, value=-3.0), SamplingConfig())
    assert scores.tolist()[1] == pytest.approx(2.0 + second)
    assert scores.tolist()[3] == 3.0
