"""A critic: zero or a reward model at the start, a head that stays a head."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from tutelage.algorithms import ppo_value_loss
from tutelage.errors import ModelError
from tutelage.models import Critic, Policy, RewardModel, RewardScale, SharedCritic
from tutelage.records import Message, Prompt

QUESTION = Prompt("p", (Message("user", "how are you?"),))


@pytest.fixture
def trained(tiny_causal_lm):
    """A critic with a head that is not zero, on a tied model."""
    critic = Critic.from_policy(tiny_causal_lm("llama", tie_word_embeddings=True))
    nn.init.normal_(critic.head.weight)
    nn.init.normal_(critic.head.bias)
    return critic


def test_new_head_values_everything_at_exactly_zero(
    tiny_causal_lm, lay_out, ragged_sequences, architecture
):
    critic = Critic.from_policy(tiny_causal_lm(architecture))
    rows = lay_out(ragged_sequences)
    assert critic.values(rows).eq(0).all()
    assert critic.final_values(rows).eq(0).all()


def test_value_is_of_the_state_in_which_the_token_was_chosen(trained, lay_out):
    rows = lay_out([([5, 6, 7, 8], [9, 10, 11, 12, 13, 14])])
    with torch.no_grad():
        hidden = trained.backbone.model(input_ids=rows.tokens).last_hidden_state[0]
        expected = (hidden @ trained.head.weight[0] + trained.head.bias).squeeze()
        values = trained.values(rows)[0]
        final = trained.final_values(rows)[0]
    assert values[:4].eq(0).all()
    torch.testing.assert_close(values[4:], expected[3:9], rtol=1e-5, atol=1e-5)
    assert final.item() == pytest.approx(expected[9].item(), abs=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_value_of_a_finished_answer_is_the_normalised_score(tiny_tokenizer, lay_out, bias):
    config = AutoConfig.for_model(
        "llama",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
        num_labels=1,
    )
    model = AutoModelForSequenceClassification.from_config(config)
    model.score = nn.Linear(32, 1, bias=bias)
    reward = RewardModel(model, tiny_tokenizer, scale=RewardScale(mean=0.3, std=0.2))
    critic = Critic.from_reward_model(model, mean=0.3, std=0.2)
    ids = reward.encode(QUESTION, "fine.")
    assert ids is not None
    with torch.no_grad():
        value = critic.final_values(lay_out([(ids[:3], ids[3:])])).item()
    assert value == pytest.approx(reward.score([QUESTION], ["fine."])[0], abs=1e-5)
    shared = {w.data_ptr() for w in critic.parameters()} & {
        w.data_ptr() for w in model.parameters()
    }
    assert not shared


def test_encoder_cannot_become_a_critic():
    config = AutoConfig.for_model(
        "bert", hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=1
    )
    with pytest.raises(ModelError, match=r"BertForSequenceClassification.*critic to policy"):
        Critic.from_reward_model(AutoModelForSequenceClassification.from_config(config))


def test_retying_and_resizing_leave_the_head_alone(trained, lay_out, ragged_sequences, tmp_path):
    rows = lay_out(ragged_sequences)
    with torch.no_grad():
        before = trained.values(rows)
        everywhere = trained(rows.tokens, rows.attention_mask)
        trained.backbone.model.tie_weights()
        trained.backbone.model.resize_token_embeddings(70, mean_resizing=False)
        assert trained.values(rows).equal(before)
        trained.save(tmp_path)
        loaded = Critic.load(tmp_path)
        assert loaded.values(rows).equal(before)
    assert everywhere.shape == rows.tokens.shape
    assert loaded.head.weight.shape == (1, 32)


def test_saved_critic_is_two_files_and_configuration(trained, tmp_path):
    trained.save(tmp_path)
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {
        "model.safetensors",
        "value_head.safetensors",
    }


def test_folder_without_a_head_is_no_critic(tiny_causal_lm, tmp_path):
    tiny_causal_lm("llama").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no value_head\.safetensors"):
        Critic.load(tmp_path)


def test_loaded_critic_has_no_dropout(tiny_causal_lm, tmp_path):
    wet = {"attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1}
    Critic.from_policy(tiny_causal_lm("gpt2", **wet)).save(tmp_path)
    loaded = Critic.load(tmp_path).train()
    assert not [m for m in loaded.modules() if isinstance(m, nn.Dropout) and m.p > 0]


def test_value_loss_gives_the_policy_no_gradient(tiny_causal_lm, lay_out, ragged_sequences):
    policy = Policy(tiny_causal_lm("llama"))
    critic = Critic.from_policy(policy.model)
    rows = lay_out(ragged_sequences)
    zeros = torch.zeros(rows.tokens.shape)
    ppo_value_loss(
        critic.values(rows), zeros, zeros + 1, rows.response_mask, clip=None
    ).loss.backward()
    assert critic.head.weight.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in policy.model.parameters())


@pytest.fixture
def shared(tiny_causal_lm) -> SharedCritic:
    """A head that is not zero, on the trunk of a policy."""
    critic = SharedCritic(Policy(tiny_causal_lm("llama"), temperature=0.7))
    nn.init.normal_(critic.head.weight)
    nn.init.normal_(critic.head.bias)
    return critic


def test_shared_critic_reads_what_a_copy_of_the_trunk_reads(shared, lay_out, ragged_sequences):
    own = Critic.from_policy(shared.policy.model)
    own.head.load_state_dict(shared.head.state_dict())
    rows = lay_out(ragged_sequences, width=20, side="left")
    with torch.no_grad():
        expected = own.values(rows)
        states = shared.policy.states(rows)
        assert expected[rows.response_mask].std() > 0.1
        assert shared.values(rows).equal(expected)
        assert shared.values(rows, states).equal(expected)
        assert own.values(rows, torch.full_like(states, torch.nan)).equal(expected)
        assert shared.final_values(rows).equal(own.final_values(rows))


def test_shared_critic_follows_its_policy_and_owns_its_head_alone(
    shared, lay_out, ragged_sequences
):
    assert set(shared.state_dict()) == {"head.weight", "head.bias"}
    assert sum(weight.numel() for weight in shared.parameters()) == 33
    rows = lay_out(ragged_sequences)
    before = shared.values(rows)
    with torch.no_grad():
        shared.policy.model.model.norm.weight.mul_(2.0)
        doubled = (before - shared.head.bias) * 2.0 + shared.head.bias
    mask = rows.response_mask
    torch.testing.assert_close(shared.values(rows)[mask], doubled[mask], rtol=1e-5, atol=1e-5)


def test_value_loss_of_a_shared_critic_reaches_the_trunk_but_no_vocabulary_head(
    shared, lay_out, ragged_sequences
):
    shared.values(lay_out(ragged_sequences)).sum().backward()
    model = shared.policy.model
    assert model.lm_head.weight.grad is None
    assert all(weight.grad.abs().sum() > 0 for weight in model.model.layers.parameters())


def test_new_shared_head_values_everything_at_exactly_zero(
    tiny_causal_lm, lay_out, ragged_sequences, architecture
):
    critic = SharedCritic(Policy(tiny_causal_lm(architecture)))
    assert critic.values(lay_out(ragged_sequences)).eq(0).all()


def test_shared_critic_is_saved_as_its_head_and_loaded_onto_its_policy(
    shared, lay_out, ragged_sequences, tmp_path
):
    shared.save(tmp_path / "critic")
    assert {path.name for path in (tmp_path / "critic").iterdir()} == {
        "value_head.safetensors",
        "critic.json",
    }
    rows = lay_out(ragged_sequences)
    loaded = Critic.load(tmp_path / "critic", policy=shared.policy)
    assert isinstance(loaded, SharedCritic)
    assert loaded.values(rows).equal(shared.values(rows))
    with pytest.raises(ModelError, match="a head on its policy's trunk: load the policy"):
        Critic.load(tmp_path / "critic")


def test_states_that_are_no_hidden_states_cannot_be_shared(tiny_causal_lm):
    policy = Policy(tiny_causal_lm("gemma2", head_dim=16, num_key_value_heads=1))
    with pytest.raises(ModelError, match=r"Gemma2ForCausalLM scales or caps.*critic_trunk to own"):
        SharedCritic(policy)


@pytest.mark.parametrize("kind", [Critic, SharedCritic])
def test_values_are_not_rounded_to_the_format_of_the_products(
    tiny_causal_lm, lay_out, ragged_sequences, kind
):
    """Near 5 numbers of bfloat16 are 1/32 apart: an error of a critic below that would be lost."""
    model = tiny_causal_lm("llama")
    coarse = Policy(model, compute=torch.bfloat16)
    critic = SharedCritic(coarse) if kind is SharedCritic else Critic(model, torch.bfloat16)
    nn.init.normal_(critic.head.weight)
    nn.init.constant_(critic.head.bias, 5.0)
    rows = lay_out(ragged_sequences)
    values = critic.values(rows)[rows.response_mask]
    assert values.dtype is torch.float32
    assert not values.equal(values.bfloat16().float())
    with torch.no_grad():
        states = critic.backbone.before(rows.tokens, rows.attention_mask, rows.response_mask)
        expected = states.double() @ critic.head.weight[0].double() + critic.head.bias.double()
    torch.testing.assert_close(values.double(), expected, rtol=1e-6, atol=1e-5)
