"""Padding of any amount, on any side, with any content, changes nothing."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tutelage.algorithms import ppo_policy_loss, ppo_value_loss, token_logprobs
from tutelage.models import Critic, Policy

LAYOUTS = [("right", 14), ("right", 30), ("left", 14), ("left", 30)]
CLOSE = {"rtol": 0, "atol": 1e-5}


def critic_with_head(model) -> Critic:
    critic = Critic.from_policy(model)
    nn.init.normal_(critic.head.weight)
    return critic


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_changes_neither_logprobs_nor_values(
    tiny_causal_lm, lay_out, alone, ragged_sequences, architecture, attention
):
    model = tiny_causal_lm(architecture, attn_implementation=attention)
    assert model.config._attn_implementation == attention
    policy, critic = Policy(model), critic_with_head(model)
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for read in (policy.logprobs, critic.values):
            expected = alone(read, ragged_sequences)
            for side, width in LAYOUTS:
                batch = lay_out(ragged_sequences, width=width, side=side, padding=random)
                found = read(batch)
                torch.testing.assert_close(found[batch.response_mask], expected, **CLOSE)
                assert found[~batch.response_mask].eq(0).all()


def test_padding_does_not_change_the_value_after_the_last_token(
    tiny_causal_lm, lay_out, ragged_sequences, architecture
):
    critic = critic_with_head(tiny_causal_lm(architecture))
    with torch.no_grad():
        expected = torch.cat([critic.final_values(lay_out([row])) for row in ragged_sequences])
        for side, width in LAYOUTS:
            found = critic.final_values(lay_out(ragged_sequences, width=width, side=side))
            torch.testing.assert_close(found, expected, **CLOSE)
    assert expected.unique().numel() == 3


def test_absolute_positions_without_position_ids_would_be_wrong(
    tiny_causal_lm, lay_out, alone, ragged_sequences
):
    """Negative control: the comparison above notices what it is there to notice."""
    model = tiny_causal_lm("gpt2")
    batch = lay_out(ragged_sequences, width=39, side="left")
    mask = batch.response_mask
    with torch.no_grad():
        logits = model(input_ids=batch.tokens, attention_mask=batch.attention_mask).logits
        careless = token_logprobs(logits[:, :-1], batch.tokens[:, 1:])[mask[:, 1:]]
        expected = alone(Policy(model).logprobs, ragged_sequences)
        right = Policy(model).logprobs(batch)[mask]
    assert (careless - expected).abs().max() > 0.5
    torch.testing.assert_close(right, expected, **CLOSE)


def test_padding_id_within_a_prompt_is_read_like_any_other(tiny_causal_lm, lay_out, alone):
    model = tiny_causal_lm("llama", pad_token_id=0)
    rows = [([5, 0, 6, 0, 7], [8, 9]), ([5], [8])]
    policy = Policy(model)
    with torch.no_grad():
        batch = lay_out(rows)
        assert batch.attention_mask[0].all()
        every_token = model(input_ids=torch.tensor([[5, 0, 6, 0, 7, 8, 9]])).logits
        expected = token_logprobs(every_token[:, 4:6], torch.tensor([[8, 9]]))[0]
        torch.testing.assert_close(policy.logprobs(batch)[0, 5:7], expected, **CLOSE)
        blanked = replace(batch, attention_mask=batch.attention_mask & (batch.tokens != 0))
        assert (policy.logprobs(blanked)[0, 5:7] - expected).abs().max() > 0.1


def ppo_gradients(policy: Policy, critic: Critic, batch, garbage: bool) -> tuple[float, Tensor]:
    """Loss and all gradients of policy and critic, for targets that depend on the token alone."""
    mask = batch.response_mask
    position = torch.where(mask, mask.cumsum(1), 0) + 10 * torch.arange(len(batch))[:, None]
    targets = [torch.sin(0.7 * position + k) for k in range(4)]
    if garbage:
        rubbish = torch.tensor([torch.nan, 1e9, -torch.inf, torch.inf])
        filler = rubbish[torch.arange(mask.numel()) % 4].view_as(mask)
        targets = [torch.where(mask, target, filler) for target in targets]
    old, advantages, values, returns = targets
    pi = ppo_policy_loss(policy.logprobs(batch), old - 3, advantages, mask, clip=0.2)
    v = ppo_value_loss(critic.values(batch), values, returns, mask, clip=0.2)
    policy.model.zero_grad()
    critic.zero_grad()
    loss = pi.loss + v.loss
    loss.backward()
    weights = [*policy.model.parameters(), *critic.parameters()]
    return loss.item(), torch.cat([w.grad.flatten() for w in weights if w.grad is not None])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_and_garbage_behind_masks_change_neither_loss_nor_gradients(
    tiny_causal_lm, lay_out, ragged_sequences, architecture, attention
):
    model = tiny_causal_lm(architecture, attn_implementation=attention)
    policy, critic = Policy(model), critic_with_head(model)
    loss, gradient = ppo_gradients(policy, critic, lay_out(ragged_sequences), garbage=False)
    assert gradient.norm() > 0.1
    random = torch.Generator().manual_seed(3)
    for side, width in LAYOUTS:
        batch = lay_out(ragged_sequences, width=width, side=side, padding=random)
        padded_loss, padded = ppo_gradients(policy, critic, batch, garbage=True)
        assert padded_loss == pytest.approx(loss, rel=1e-6)
        assert (padded - gradient).norm() <= 2e-6 * gradient.norm()


def test_tokens_after_the_end_change_nothing_bit_for_bit(tiny_causal_lm, lay_out, ragged_sequences):
    policy = Policy(tiny_causal_lm("llama"))
    critic = critic_with_head(policy.model)
    batch = lay_out(ragged_sequences, width=20)
    changed = replace(batch, tokens=torch.where(batch.attention_mask, batch.tokens, 17))
    with torch.no_grad():
        assert policy.logprobs(batch).equal(policy.logprobs(changed))
        assert critic.values(batch).equal(critic.values(changed))
