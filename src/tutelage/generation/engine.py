"""What draws completions: the protocol every sampler follows.

prompts (token ids) ──generate──> completions (token ids, log-probabilities, text)
policy ──load_weights──> the sampler's next completions are the new policy's
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tutelage.errors import GenerationError
from tutelage.models.policy import Policy
from tutelage.records import Completion, EncodedPrompt

__all__ = ["Engine", "NotFiniteError", "Sampling"]


class NotFiniteError(GenerationError):
    """Completions were drawn with log-probabilities that are not finite."""

    def __init__(self, completions: Sequence[Completion]) -> None:
        """Keeps all completions of the call, so that the odd ones can be looked at."""
        self.completions = completions
        odd = next(each for each in completions if not math.isfinite(sum(each.logprobs)))
        super().__init__(
            f"the completion of prompt {odd.prompt_id!r} has log-probabilities that are not "
            "finite: the policy's weights or its logits have overflowed; lower the learning rate"
        )


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn."""

    stop_tokens: frozenset[int]
    """A completion is finished when it writes one of these; there may be several."""
    max_tokens: int = 96
    """Longest completion, stop token included."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token and must not be trained on."""
    samples_per_prompt: int = 1
    """Completions for each prompt, side by side in the result."""


class Engine(Protocol):
    """A sampler that follows the policy's weights."""

    def generate(self, prompts: Sequence[EncodedPrompt], sampling: Sampling) -> list[Completion]:
        """Draws `samples_per_prompt` completions for each prompt, in the prompts' order.

        Raises:
            NotFiniteError: a log-probability is not finite.
        """
        ...

    def load_weights(self, policy: Policy) -> None:
        """Makes the next completions the given policy's."""
        ...
