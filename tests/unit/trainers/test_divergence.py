"""Divergence of completions from a reference, in batches of any size."""

import pytest
import torch

from tutelage.models import Policy
from tutelage.trainers.divergence import sequence_kl


@pytest.mark.parametrize("batch_tokens", [1, 25, 640])
def test_divergence_is_the_difference_of_sequence_logprobs(bench, tiny_causal_lm, batch_tokens):
    world = bench(prompts_per_step=5)
    completions = world.engine.generate(world.prompts, world.sampling)
    reference = tiny_causal_lm("llama", seed=1)
    expected = []
    for prompt, completion in zip(world.prompts, completions, strict=True):
        ids = torch.tensor([[*prompt.tokens, *completion.tokens]])
        with torch.no_grad():
            gap = [
                torch.log_softmax(model(input_ids=ids).logits[0, :-1], -1)
                .gather(1, ids[0, 1:, None])[len(prompt.tokens) - 1 :]
                .sum()
                for model in (world.policy.model, reference)
            ]
        expected.append((gap[0] - gap[1]).item())
    found = sequence_kl(Policy(reference), world.prompts, completions, batch_tokens=batch_tokens)
    assert found == pytest.approx(expected, abs=1e-4)
    same = sequence_kl(world.policy, world.prompts, completions, batch_tokens=batch_tokens)
    assert same == pytest.approx([0] * 5, abs=1e-4)
