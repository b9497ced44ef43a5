"""A sampler that says what it is told: the test double for everything above generation."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from tutelage.experience import Experience
from tutelage.generation.engine import Sampling
from tutelage.models.policy import Policy
from tutelage.records import Completion, EncodedPrompt, Score, StopReason

__all__ = ["FakeEngine"]


class FakeEngine:
    """Completes each prompt with the tokens that `script(prompt, sample)` returns."""

    name = "fake"

    def __init__(
        self,
        script: Callable[[EncodedPrompt, int], Sequence[int]],
        decode: Callable[[Sequence[int]], str] = lambda tokens: " ".join(map(str, tokens)),
        policy: Policy | None = None,
    ) -> None:
        """Says what the script says, as if `policy` had drawn it.

        Args:
            script: completion tokens for a prompt and the number of the sample.
            decode: turns tokens into text.
            policy: whose log-probabilities are reported; 0, certainty, when absent.
        """
        self.script = script
        self.decode = decode
        self.policy = policy
        self.version = 0

    def load_weights(self, policy: Policy) -> None:
        """Counts a new version; follows the policy if it reports one's log-probabilities."""
        self.version += 1
        if self.policy is not None:
            self.policy = policy

    def generate(self, prompts: Sequence[EncodedPrompt], sampling: Sampling) -> list[Completion]:
        """Reads the script, cuts at the token limit and at the first stop token."""
        return [
            self._completion(prompt, list(self.script(prompt, sample)), sampling)
            for prompt in prompts
            for sample in range(sampling.samples_per_prompt)
        ]

    def _completion(
        self, prompt: EncodedPrompt, tokens: list[int], sampling: Sampling
    ) -> Completion:
        end = next((i for i, token in enumerate(tokens) if token in sampling.stop_tokens), None)
        tokens = tokens[: sampling.max_tokens if end is None else end + 1][: sampling.max_tokens]
        stopped = bool(tokens) and tokens[-1] in sampling.stop_tokens
        completion = Completion(
            prompt_id=prompt.prompt.id,
            tokens=tuple(tokens),
            logprobs=(0.0,) * len(tokens),
            text=self.decode(tokens),
            stop=StopReason.STOP_TOKEN if stopped else StopReason.LENGTH,
            policy_version=self.version,
            engine=self.name,
        )
        return completion if self.policy is None else _as_drawn_by(self.policy, prompt, completion)


def _as_drawn_by(policy: Policy, prompt: EncodedPrompt, completion: Completion) -> Completion:
    row = Experience.collate([prompt.tokens], [completion], [Score(0.0)], pad=0)
    with torch.no_grad():
        logprobs = policy.logprobs(row.to(policy.model.device))[0, len(prompt.tokens) :]
    return replace(completion, logprobs=tuple(logprobs.tolist()))
