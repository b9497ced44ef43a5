"""How far completions are from what a reference would have written."""

from collections.abc import Sequence

import torch

from tutelage.experience import Experience
from tutelage.models import Policy
from tutelage.records import Completion, EncodedPrompt, Score

__all__ = ["sequence_kl"]


@torch.no_grad()
def sequence_kl(
    reference: Policy,
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Completion],
    *,
    rows_at_once: int = 64,
) -> list[float]:
    """log pi(y | x) - log pi_ref(y | x) of each completion: its k1 estimate, in nats.

    pi is the sampler that drew the completion and kept its log-probabilities.
    """
    result: list[float] = []
    for start in range(0, len(prompts), rows_at_once):
        part = completions[start : start + rows_at_once]
        experience = Experience.collate(
            [prompt.tokens for prompt in prompts[start : start + rows_at_once]],
            part,
            [Score(0.0)] * len(part),
            pad=0,
        ).to(reference.model.device)
        gap = experience.sampler_logprobs - reference.logprobs(experience)
        result += gap.sum(1).tolist()
    return result
