"""How far completions are from what a reference would have written."""

from collections.abc import Sequence

import torch

from tutelage.config.training import READ_TOKENS
from tutelage.distributed import Cores
from tutelage.experience import Experience
from tutelage.models import Policy
from tutelage.models.microbatches import MicroBatches
from tutelage.records import Completion, EncodedPrompt, Score

__all__ = ["sequence_kl"]


@torch.no_grad()
def sequence_kl(
    reference: Policy,
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Completion],
    *,
    batch_tokens: int = READ_TOKENS,
    cores: Cores | None = None,
) -> list[float]:
    """log pi(y | x) - log pi_ref(y | x) of each completion: its k1 estimate, in nats.

    pi is the sampler that drew the completion and kept its log-probabilities.

    Args:
        reference: pi_ref.
        prompts, completions: in pairs.
        batch_tokens: read at once, padding included; fewer where memory runs out.
        cores: read a batch each.
    """

    def gaps(rows: Sequence[int]) -> list[float]:
        experience = Experience.collate(
            [prompts[row].tokens for row in rows],
            [completions[row] for row in rows],
            [Score(0.0)] * len(rows),
            pad=0,
        ).to(reference.model.device)
        gap = experience.sampler_logprobs - reference.logprobs(experience)
        return [float(total) for total in gap.sum(1)]

    lengths = [
        len(prompt.tokens) + len(completion.tokens)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    return MicroBatches(batch_tokens).values(lengths, gaps, cores)
