"""Conversations: who says what to whom, which tokens are whose, and when it is over."""

from collections.abc import Callable, Sequence

import pytest
import torch

from tutelage.data.chat import encode_prompt
from tutelage.environment import Reply
from tutelage.errors import GenerationError
from tutelage.generation import ConversationEngine, FakeEngine, LocalEngine, Sampling
from tutelage.models import Policy
from tutelage.records import EncodedPrompt, Message, Prompt, StopReason

EOS = 2
SAMPLING = Sampling(frozenset({EOS}), max_tokens=6)


class Echo:
    """Says what it heard, so many times."""

    def __init__(self, times: int = 9) -> None:
        self.times = times

    def reset(self, prompt: Prompt, seed: int) -> None:
        self.seed = seed

    def step(self, messages: Sequence[Message]) -> Reply:
        self.times -= 1
        if self.times < 0:
            return Reply(reward=5.0)
        return Reply([Message("user", f"re {messages[-1].content}")], reward=len(messages))


@pytest.fixture
def talk(tiny_tokenizer) -> Callable[..., ConversationEngine]:
    """`talk(environment, script)`: what the policy says is what the script says, turn by turn."""

    def build(
        environment=Echo, script=lambda prompt, sample: "ab", **options
    ) -> ConversationEngine:
        def tokens(prompt: EncodedPrompt, sample: int) -> list[int]:
            said = script(prompt, sample)
            if not isinstance(said, str):
                return said
            return [*tiny_tokenizer(said, add_special_tokens=False)["input_ids"], EOS]

        def decode(ids: Sequence[int]) -> str:
            return tiny_tokenizer.decode(ids, skip_special_tokens=True)

        limits = {"max_turns": 3, "max_tokens": 1000} | options
        return ConversationEngine(FakeEngine(tokens, decode), environment, tiny_tokenizer, **limits)

    return build


@pytest.fixture
def prompts(tiny_tokenizer) -> Callable[..., list[EncodedPrompt]]:
    def build(*texts: str) -> list[EncodedPrompt]:
        found = [Prompt(f"p{i}", (Message("user", text),)) for i, text in enumerate(texts)]
        return [EncodedPrompt(p, tuple(encode_prompt(tiny_tokenizer, p))) for p in found]

    return build


def test_the_whole_is_what_the_template_writes_for_the_conversation(talk, prompts, tiny_tokenizer):
    (prompt,) = prompts("hi")
    (completion,) = talk().generate([prompt], SAMPLING)
    assert [turn.text for turn in completion.turns] == ["ab", "ab", "ab"]
    messages = [
        Message("user", "hi"),
        Message("assistant", "ab"),
        Message("user", "re ab"),
        Message("assistant", "ab"),
        Message("user", "re ab"),
    ]
    whole = encode_prompt(tiny_tokenizer, Prompt("", tuple(messages)))
    last = tiny_tokenizer("ab<eos>", add_special_tokens=False)["input_ids"]
    assert [*prompt.tokens, *completion.tokens] == [*whole, *last]


def test_what_the_policy_wrote_is_marked_and_nothing_else(talk, prompts, tiny_tokenizer):
    (completion,) = talk().generate(prompts("hi"), SAMPLING)
    said = [t for t, wrote in zip(completion.tokens, completion.written, strict=True) if wrote]
    assert tiny_tokenizer.decode(said) == "ab<eos>ab<eos>ab<eos>"
    read = [t for t, wrote in zip(completion.tokens, completion.written, strict=True) if not wrote]
    assert tiny_tokenizer.decode(read) == "<|user|>re ab<eos><|assistant|>" * 2
    assert [turn.reward for turn in completion.turns] == [2, 4, 6]
    assert completion.text == "ab\n[user] re ab\n[assistant]\nab\n[user] re ab\n[assistant]\nab"


def test_logprobs_are_the_samplers_where_it_sampled_and_0_elsewhere(
    tiny_causal_lm, tiny_tokenizer, prompts
):
    """The oracle reads each whole row once, without a cache and without turns."""
    policy = Policy(tiny_causal_lm())
    engine = ConversationEngine(
        LocalEngine(policy, tiny_tokenizer, torch.Generator().manual_seed(3)),
        Echo,
        tiny_tokenizer,
        max_turns=3,
        max_tokens=120,
    )
    sampling = Sampling(frozenset({EOS}), max_tokens=20, samples_per_prompt=6)
    rows = prompts("hi", "hello you")
    found = engine.generate(rows, sampling)
    assert max(len(each.turns) for each in found) > 1
    for i, completion in enumerate(found):
        prompt = rows[i // 6].tokens
        ids = torch.tensor([[*prompt, *completion.tokens]])
        with torch.no_grad():
            logits = policy.model(ids).logits[0]
        of_each = logits.log_softmax(-1)[:-1].gather(1, ids[0, 1:, None]).flatten()
        expected = of_each[len(prompt) - 1 :] * torch.tensor(completion.written)
        # Through a cache of keys and values the sums are taken in another order.
        assert torch.allclose(torch.tensor(completion.logprobs), expected, atol=2e-4)


def test_the_environment_ends_a_conversation_by_saying_nothing(talk, prompts):
    (completion,) = talk(lambda: Echo(times=1)).generate(prompts("hi"), SAMPLING)
    assert [turn.reward for turn in completion.turns] == [2, 5]
    assert completion.turns[-1].reply == ()
    assert completion.tokens[-1] == EOS


def test_conversations_of_different_lengths_do_not_mix(talk, prompts):
    made = []

    def environment() -> Echo:
        made.append(Echo(times=[9, 0, 1][len(made)]))
        return made[-1]

    engine = talk(environment, lambda prompt, sample: prompt.prompt.messages[0].content)
    found = engine.generate(prompts("a", "b", "c"), SAMPLING)
    assert [each.prompt_id for each in found] == ["p0", "p1", "p2"]
    assert [[turn.text for turn in each.turns] for each in found] == [["a"] * 3, ["b"], ["c"] * 2]


def test_an_answer_that_the_limit_cut_off_is_the_last(talk, prompts):
    script = lambda prompt, sample: [40] * 9 if len(prompt.prompt.messages) > 1 else "ab"  # noqa: E731
    (completion,) = talk(script=script).generate(prompts("hi"), SAMPLING)
    assert len(completion.turns) == 2
    assert completion.truncated
    assert completion.turns[0].stop is StopReason.STOP_TOKEN
    assert completion.turns[-1].reward == 4


def test_a_policy_that_ends_the_text_and_not_its_turn_ends_the_conversation(talk, prompts):
    sampling = Sampling(frozenset({EOS, 1}), max_tokens=6)
    (completion,) = talk(script=lambda prompt, sample: [40, 1]).generate(prompts("hi"), sampling)
    assert len(completion.turns) == 1
    assert not completion.truncated


def test_no_turn_begins_without_room_for_its_answer(talk, prompts):
    (prompt,) = prompts("hi")
    (full,) = talk().generate([prompt], SAMPLING)
    second = len(prompt.tokens) + full.turns[1].start
    for limit, turns in ((second + 6, 2), (second + 5, 1)):
        (completion,) = talk(max_tokens=limit).generate([prompt], SAMPLING)
        assert len(completion.turns) == turns
        assert len(prompt.tokens) + len(completion.tokens) <= limit


def test_samples_of_one_prompt_meet_the_same_seed_and_later_prompts_another(talk, prompts):
    made = []

    def environment() -> Echo:
        made.append(Echo())
        return made[-1]

    engine = talk(environment, seed=7)
    sampling = Sampling(frozenset({EOS}), max_tokens=6, samples_per_prompt=2)
    engine.generate(prompts("a", "b"), sampling)
    state = engine.state_dict()
    engine.generate(prompts("a"), sampling)
    seeds = [each.seed for each in made]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3] != seeds[4] == seeds[5]
    assert len(set(seeds)) == 3
    resumed = talk(environment, seed=7)
    resumed.load_state_dict(state)
    resumed.generate(prompts("a"), sampling)
    assert made[-1].seed == seeds[-1]


def test_an_environment_that_raises_fails_its_own_conversation(talk, prompts):
    class Broken(Echo):
        def step(self, messages: Sequence[Message]) -> Reply:
            if messages[0].content == "b":
                raise RuntimeError("out of paper")
            return super().step(messages)

    good, bad = talk(Broken).generate(prompts("a", "b"), SAMPLING)
    assert good.failure == ""
    assert "out of paper" in bad.failure
    assert len(bad.turns) == 1


def test_an_environment_must_reply_with_a_reply(talk, prompts):
    class Mute(Echo):
        def step(self, messages: Sequence[Message]) -> Reply:
            return None

    (completion,) = talk(Mute).generate(prompts("a"), SAMPLING)
    assert "returned None, expected a Reply" in completion.failure


def test_a_text_to_be_continued_is_no_conversation(talk, prompts):
    prompt = Prompt("p", (Message("user", "once"),), mode="continuation")
    with pytest.raises(GenerationError, match="continuation"):
        talk().generate([EncodedPrompt(prompt, (5, 6))], SAMPLING)
