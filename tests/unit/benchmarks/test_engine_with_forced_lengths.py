import pytest
from benchmarks.sides import ours, parity, shapes
from benchmarks.sides.requests import Requests

REQUESTS = Requests(shape="micro", count=7, shortest=3, longest=9, answer=12)


@pytest.fixture(scope="module")
def policy():
    return ours.new_policy("micro", "float32", temperature=0.7)


def rollout(policy, batch):
    engine = ours.engine(policy, 256, REQUESTS.by_prompt, batch)
    prompts = ours.encoded(REQUESTS.prompts, 256)
    settings = ours.sampling(REQUESTS.answer, ends=True, temperature=0.7)
    return prompts, engine.generate(prompts, settings)


@pytest.mark.parametrize("batch", [7, 3])
def test_answers_have_the_given_lengths_in_any_batch(policy, batch):
    _, completions = rollout(policy, batch)
    assert [len(completion.tokens) for completion in completions] == REQUESTS.lengths
    assert all(completion.tokens[-1] == shapes.END for completion in completions)
    assert all(shapes.END not in completion.tokens[:-1] for completion in completions)


def test_gate_opens_for_the_engine_and_shuts_for_a_wrong_temperature(policy):
    prompts, completions = rollout(policy, 7)
    (line,) = parity.logprob_gate(policy, prompts, completions, "float32", lengths_forced=True)
    assert line.passed
    other = ours.new_policy("micro", "float32", temperature=0.8)
    (line,) = parity.logprob_gate(other, prompts, completions, "float32", lengths_forced=True)
    assert not line.passed


def test_text_and_token_ids_of_a_prompt_say_the_same(policy):
    from benchmarks.sides.tokenizer import words_tokenizer

    tokenizer = words_tokenizer(256)
    for prompt in ours.encoded(REQUESTS.prompts, 256):
        text = prompt.prompt.text + tokenizer.decode([100, 101])
        assert tokenizer(text)["input_ids"] == [*prompt.tokens, 100, 101]
