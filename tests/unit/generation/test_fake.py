"""The test double says what it is told, within the rules that every engine keeps."""

import pytest
import torch

from tutelage.experience import Experience
from tutelage.generation import FakeEngine, Sampling
from tutelage.models import Policy
from tutelage.records import Score, StopReason

STOPS = frozenset({2, 7})


@pytest.mark.parametrize(
    ("script", "tokens", "stop"),
    [
        ([3, 4, 5, 6], (3, 4, 5), StopReason.LENGTH),
        ([3, 7, 5, 2], (3, 7), StopReason.STOP_TOKEN),
        ([3, 4, 2, 9], (3, 4, 2), StopReason.STOP_TOKEN),
        ([3, 4, 5, 2], (3, 4, 5), StopReason.LENGTH),
        ([3], (3,), StopReason.LENGTH),
    ],
)
def test_script_is_cut_at_the_first_stop_token_and_at_the_limit(encoded, script, tokens, stop):
    engine = FakeEngine(lambda prompt, sample: script)
    completion = engine.generate(encoded([1]), Sampling(STOPS, 3))[0]
    assert (completion.tokens, completion.stop) == (tokens, stop)
    assert completion.logprobs == (0.0,) * len(tokens)


def test_samples_of_a_prompt_stand_side_by_side(encoded):
    engine = FakeEngine(lambda prompt, sample: [*prompt.tokens, sample])
    completions = engine.generate(encoded([3], [4]), Sampling(STOPS, 5, samples_per_prompt=2))
    assert [c.text for c in completions] == ["3 0", "3 1", "4 0", "4 1"]
    assert [c.prompt_id for c in completions] == ["p0", "p0", "p1", "p1"]


def test_versions_are_counted(encoded, tiny_causal_lm):
    engine = FakeEngine(lambda prompt, sample: [3])
    engine.load_weights(Policy(tiny_causal_lm("llama")))
    assert engine.generate(encoded([1]), Sampling(STOPS))[0].policy_version == 1


def test_with_a_policy_the_logprobs_are_the_policys(encoded, tiny_causal_lm):
    old, new = Policy(tiny_causal_lm("llama"), temperature=0.7), Policy(tiny_causal_lm("gpt2"))
    engine = FakeEngine(lambda prompt, sample: [8, 9, 2], policy=old)
    for policy in (old, new):
        completions = engine.generate(encoded([5, 6], [5]), Sampling(STOPS))
        rows = Experience.collate([[5, 6], [5]], completions, [Score(0.0)] * 2, pad=0)
        with torch.no_grad():
            torch.testing.assert_close(
                policy.logprobs(rows), rows.sampler_logprobs, rtol=0, atol=1e-5
            )
        engine.load_weights(new)
