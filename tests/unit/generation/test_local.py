"""The sampler in the training process: what it draws, how it stops, what it keeps."""

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from tutelage.algorithms import masked_mean
from tutelage.distributed import Cores
from tutelage.errors import GenerationError
from tutelage.experience import Experience
from tutelage.generation import LocalEngine, Sampling
from tutelage.models import Policy, load_causal_lm, save_model
from tutelage.records import Score, StopReason

NO_STOP = frozenset[int]()
PROMPTS = ([5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15, 16], [17, 18])


def engine_of(policy: Policy, tokenizer, seed: int = 0, **options) -> LocalEngine:
    return LocalEngine(policy, tokenizer, torch.Generator().manual_seed(seed), **options)


@pytest.fixture
def small(tiny_causal_lm, tiny_tokenizer):
    """A sampler over eight tokens, which draws each of them often."""
    return engine_of(Policy(tiny_causal_lm("llama", vocab_size=8)), tiny_tokenizer)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gpt_neox"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_and_training_agree_on_every_logprob(
    tiny_causal_lm, tiny_tokenizer, encoded, architecture, temperature
):
    policy = Policy(tiny_causal_lm(architecture), temperature=temperature)
    prompts = encoded(*PROMPTS)
    sampling = Sampling(frozenset({2, 30, 31}), 12, temperature, samples_per_prompt=3)
    completions = engine_of(policy, tiny_tokenizer, batch_size=6).generate(prompts, sampling)
    rows = Experience.collate(
        [prompt.tokens for prompt in prompts for _ in range(3)],
        completions,
        [Score(0.0)] * len(completions),
        pad=0,
    )
    with torch.no_grad():
        found = policy.logprobs(rows)
        wrong = Policy(policy.model, temperature=2 * temperature).logprobs(rows)
    assert (found - rows.sampler_logprobs).abs().max() <= 1e-4
    assert ((found - rows.sampler_logprobs).exp() - 1).abs().max() <= 1e-4
    gap = masked_mean((wrong - rows.sampler_logprobs).abs(), rows.response_mask)
    assert gap > 0.1


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gpt_neox"])
def test_greedy_completions_do_not_depend_on_company(
    tiny_causal_lm, tiny_tokenizer, encoded, architecture
):
    policy = Policy(tiny_causal_lm(architecture))
    prompts, sampling = encoded(*PROMPTS), Sampling(frozenset({2}), 12, 0.0)
    together = engine_of(policy, tiny_tokenizer).generate(prompts, sampling)
    alone = [
        engine_of(policy, tiny_tokenizer).generate([prompt], sampling)[0] for prompt in prompts
    ]
    assert [c.tokens for c in together] == [c.tokens for c in alone]
    assert len({c.tokens for c in together}) > 1


def test_sequences_are_drawn_with_their_probability(tiny_causal_lm, tiny_tokenizer, encoded):
    """All 3 + 3 * 4 sequences of at most two tokens, the stop token 3 among the four."""
    model = tiny_causal_lm("llama", vocab_size=4, pad_token_id=None)
    policy = Policy(model, temperature=0.9)
    count = 6000
    sampling = Sampling(frozenset({3}), 2, 0.9, samples_per_prompt=count)
    engine = engine_of(policy, tiny_tokenizer)
    drawn = Counter(c.tokens for c in engine.generate(encoded([1, 2]), sampling))
    sequences = [(3,), *product((0, 1, 2), range(4))]
    with torch.no_grad():
        first = (model(torch.tensor([[1, 2]])).logits[0, -1] / 0.9).softmax(0)
        second = {
            a: (model(torch.tensor([[1, 2, a]])).logits[0, -1] / 0.9).softmax(0) for a in range(3)
        }
    expected = [
        count * float(first[s[0]] * (second[s[0]][s[1]] if len(s) > 1 else 1)) for s in sequences
    ]
    assert set(drawn) <= set(sequences)
    assert sum(expected) == pytest.approx(count, rel=1e-5)
    statistic = sum((drawn[s] - e) ** 2 / e for s, e in zip(sequences, expected, strict=True))
    # 99.9 % quantile of chi-square with 12 degrees of freedom.
    assert statistic < 32.91


def test_completion_ends_with_its_first_stop_token_or_at_the_limit(small, encoded):
    stops = frozenset({2, 7})
    completions = small.generate(encoded([5, 6, 7], [4]), Sampling(stops, 6, samples_per_prompt=60))
    ends = Counter()
    for completion in completions:
        assert not stops & set(completion.tokens[:-1])
        assert completion.truncated == (completion.tokens[-1] not in stops)
        assert len(completion.tokens) == 6 or not completion.truncated
        assert len(completion.logprobs) == len(completion.tokens)
        ends[completion.tokens[-1] if not completion.truncated else None] += 1
    assert set(ends) == {2, 7, None}


def test_stop_token_on_the_last_allowed_position_is_no_truncation(small, encoded):
    completions = small.generate(
        encoded([5, 6]), Sampling(frozenset({2}), 1, samples_per_prompt=60)
    )
    assert {len(c.tokens) for c in completions} == {1}
    assert {(c.tokens[0] == 2, c.stop) for c in completions} == {
        (True, StopReason.STOP_TOKEN),
        (False, StopReason.LENGTH),
    }


def test_masks_come_from_the_sampler_where_padding_is_the_stop_token(small, encoded):
    prompts = encoded([5, 6], [6])
    completions = small.generate(prompts, Sampling(frozenset({2}), 5, samples_per_prompt=40))
    repeated = [prompt.tokens for prompt in prompts for _ in range(40)]
    rows = Experience.collate(repeated, completions, [Score(0.0)] * 80, pad=2)
    for i, completion in enumerate(completions):
        written = rows.tokens[i][rows.response_mask[i]].tolist()
        assert tuple(written) == completion.tokens
        assert rows.truncated[i].item() == (2 not in written)


def test_without_stop_tokens_every_completion_is_cut_off(small, encoded):
    completions = small.generate(encoded([5], [6, 7]), Sampling(NO_STOP, 4))
    assert [len(c.tokens) for c in completions] == [4, 4]
    assert all(c.truncated for c in completions)


def test_completions_stand_in_the_order_of_their_prompts(small, encoded):
    completions = small.generate(
        encoded(*([5] * n for n in (4, 1, 3, 2))), Sampling(NO_STOP, 2, samples_per_prompt=2)
    )
    assert [c.prompt_id for c in completions] == ["p0", "p0", "p1", "p1", "p2", "p2", "p3", "p3"]
    assert small.generate([], Sampling(NO_STOP, 2)) == []


def test_same_seed_same_completions(tiny_causal_lm, tiny_tokenizer, encoded):
    policy = Policy(tiny_causal_lm("llama"))

    def sample(seed: int) -> list:
        engine = engine_of(policy, tiny_tokenizer, seed)
        return engine.generate(encoded(*PROMPTS), Sampling(frozenset({2}), 8))

    assert sample(0) == sample(0)
    assert sample(0) != sample(1)


def test_number_of_cores_changes_no_completion(tiny_causal_lm, tiny_tokenizer, encoded):
    policy = Policy(tiny_causal_lm("llama"))
    prompts = encoded(*([8 + i % 20] * (1 + i % 5) for i in range(80)))
    sampling = Sampling(frozenset({2}), 5, samples_per_prompt=2)

    def sample(count: int) -> list:
        engine = engine_of(policy, tiny_tokenizer, cores=Cores(count))
        return [engine.generate(prompts, sampling) for _ in range(2)]

    first, second = sample(1)
    assert sample(2) == sample(3) == [first, second]
    assert first != second
    assert [each.prompt_id for each in first[::2]] == [each.prompt.id for each in prompts]


def test_cores_draw_random_numbers_of_their_own(tiny_causal_lm, tiny_tokenizer, encoded):
    engine = engine_of(Policy(tiny_causal_lm("llama")), tiny_tokenizer, cores=Cores(2))
    completions = engine.generate(encoded(*[[5, 6, 7]] * 128), Sampling(NO_STOP, 6))
    assert len({each.tokens for each in completions}) == 128


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_who_leaves_when_changes_no_completion(
    tiny_causal_lm, tiny_tokenizer, encoded, architecture, monkeypatch
):
    policy = Policy(tiny_causal_lm(architecture, vocab_size=8))
    found = []
    for share in (0.0, 0.25, 1.0):
        engine = engine_of(policy, tiny_tokenizer)
        monkeypatch.setattr(type(engine._decoder), "idle_share", share)
        sampling = Sampling(frozenset({2}), 40, samples_per_prompt=20)
        found.append(engine.generate(encoded([5, 6, 7], [4]), sampling))
    tokens = [[completion.tokens for completion in completions] for completions in found]
    assert tokens[0] == tokens[1] == tokens[2]
    assert len({len(each) for each in tokens[0]}) > 10


def test_compiled_decoding_reads_no_row_that_has_ended(
    tiny_causal_lm, tiny_tokenizer, encoded, monkeypatch
):
    engine = engine_of(Policy(tiny_causal_lm("llama", vocab_size=8)), tiny_tokenizer)
    if not engine._decoder.native:
        pytest.skip("no C++ compiler")
    read = []
    step = engine._decoder.step
    monkeypatch.setattr(
        engine._decoder,
        "step",
        lambda tokens, cache: read.append(len(tokens)) or step(tokens, cache),
    )
    sampling = Sampling(frozenset({2}), 40, samples_per_prompt=20)
    completions = engine.generate(encoded([5, 6, 7], [4]), sampling)
    assert sum(read) == sum(len(completion.tokens) - 1 for completion in completions)


def test_sampled_ids_are_kept_where_decoding_would_merge_them(tiny_causal_lm, encoded):
    from tokenizers import Tokenizer, models

    merges = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "<eos>": 3}, [("a", "b")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=merges, eos_token="<eos>")
    assert tokenizer("ab")["input_ids"] == [2]
    policy = Policy(tiny_causal_lm("llama", vocab_size=4, pad_token_id=None))
    sampling = Sampling(frozenset({3}), 4, samples_per_prompt=100)
    completions = engine_of(policy, tokenizer).generate(encoded([0]), sampling)
    apart = [c for c in completions if (0, 1) in zip(c.tokens, c.tokens[1:], strict=False)]
    assert apart
    rows = Experience.collate([[0]] * len(apart), apart, [Score(0.0)] * len(apart), pad=0)
    with torch.no_grad():
        gap = (policy.logprobs(rows) - rows.sampler_logprobs).abs().max()
    assert gap <= 1e-4
    again = tuple(tokenizer(apart[0].text)["input_ids"])
    assert again != apart[0].tokens[: len(again)]


def test_text_holds_no_special_tokens(tiny_causal_lm, tiny_tokenizer, encoded):
    policy = Policy(tiny_causal_lm("llama"))
    completions = engine_of(policy, tiny_tokenizer).generate(
        encoded([5]), Sampling(frozenset({2}), 40, samples_per_prompt=40)
    )
    assert any(set(c.tokens) & {0, 1, 4, 5, 6} for c in completions)
    assert not any("<" in c.text for c in completions)


def test_generation_settings_in_a_model_folder_change_nothing(
    tiny_causal_lm, tiny_tokenizer, encoded, tmp_path
):
    model = tiny_causal_lm("llama")
    sampling = Sampling(frozenset({2}), 10, samples_per_prompt=4)
    expected = engine_of(Policy(model), tiny_tokenizer).generate(encoded(*PROMPTS), sampling)
    model.generation_config.update(
        do_sample=True,
        top_p=0.01,
        top_k=1,
        repetition_penalty=5.0,
        temperature=0.1,
        min_new_tokens=9,
        no_repeat_ngram_size=1,
        eos_token_id=[2, 5],
    )
    save_model(model, tiny_tokenizer, tmp_path)
    loaded = load_causal_lm(tmp_path)
    assert loaded.generation_config.top_k == 1
    found = engine_of(Policy(loaded), tiny_tokenizer).generate(encoded(*PROMPTS), sampling)
    assert [c.tokens for c in found] == [c.tokens for c in expected]


def test_mode_of_the_model_is_restored(small, encoded):
    for training in (True, False):
        small.policy.model.train(training)
        small.generate(encoded([5]), Sampling(NO_STOP, 2))
        assert small.policy.model.training is training


def test_new_weights_are_sampled_at_once_and_counted(tiny_causal_lm, tiny_tokenizer, encoded):
    engine = engine_of(Policy(tiny_causal_lm("llama")), tiny_tokenizer)
    other = Policy(tiny_causal_lm("llama", seed=1))
    sampling = Sampling(NO_STOP, 8, 0.0)
    before = engine.generate(encoded([5, 6]), sampling)[0]
    engine.load_weights(other)
    after = engine.generate(encoded([5, 6]), sampling)[0]
    expected = engine_of(other, tiny_tokenizer).generate(encoded([5, 6]), sampling)[0]
    assert (before.policy_version, after.policy_version) == (0, 1)
    assert after == replace(expected, policy_version=1)
    assert before.tokens != after.tokens


def test_weights_that_an_optimiser_has_moved_are_sampled(tiny_causal_lm, tiny_tokenizer, encoded):
    """Fused optimisers write into the weights without leaving a trace on the tensors."""
    policy = Policy(tiny_causal_lm("llama"))
    engine = engine_of(policy, tiny_tokenizer)
    sampling = Sampling(NO_STOP, 8, 0.0)
    before = engine.generate(encoded([5, 6]), sampling)[0]
    for weight in policy.model.parameters():
        weight.grad = torch.randn_like(weight)
    torch.optim.AdamW(policy.model.parameters(), lr=0.5, fused=True).step()
    after = engine.generate(encoded([5, 6]), sampling)[0]
    fresh = engine_of(policy, tiny_tokenizer).generate(encoded([5, 6]), sampling)[0]
    assert after == fresh
    assert after.logprobs != before.logprobs


def test_prompt_without_tokens_is_refused(small, encoded):
    with pytest.raises(GenerationError, match="prompt 'p1' has no tokens"):
        small.generate(encoded([5], []), Sampling(NO_STOP, 2))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_prompt_must_leave_room_for_its_completion(
    tiny_causal_lm, tiny_tokenizer, encoded, architecture
):
    engine = engine_of(Policy(tiny_causal_lm(architecture)), tiny_tokenizer)
    assert engine.generate(encoded([5] * 120), Sampling(NO_STOP, 8))
    with pytest.raises(GenerationError, match=r"'p0' has 121 tokens.*max_prompt_tokens to 120"):
        engine.generate(encoded([5] * 121), Sampling(NO_STOP, 8))


def test_broken_weights_are_reported_not_sampled(small, encoded):
    with torch.no_grad():
        small.policy.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(GenerationError, match="log-probabilities that are not finite"):
        small.generate(encoded([5]), Sampling(NO_STOP, 2))
