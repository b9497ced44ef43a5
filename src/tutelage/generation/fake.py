"""A sampler that says what it is told: the test double for everything above generation."""

from collections.abc import Callable, Sequence

from tutelage.generation.engine import Sampling
from tutelage.models.policy import Policy
from tutelage.records import Completion, EncodedPrompt, StopReason

__all__ = ["FakeEngine"]


class FakeEngine:
    """Completes each prompt with the tokens that `script(prompt, sample)` returns."""

    name = "fake"

    def __init__(
        self,
        script: Callable[[EncodedPrompt, int], Sequence[int]],
        decode: Callable[[Sequence[int]], str] = lambda tokens: " ".join(map(str, tokens)),
    ) -> None:
        """Log-probabilities are 0, as of a policy that is certain.

        Args:
            script: completion tokens for a prompt and the number of the sample.
            decode: turns tokens into text.
        """
        self.script = script
        self.decode = decode
        self.version = 0

    def load_weights(self, policy: Policy) -> None:
        """Counts a new version."""
        self.version += 1

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
        return Completion(
            prompt_id=prompt.prompt.id,
            tokens=tuple(tokens),
            logprobs=(0.0,) * len(tokens),
            text=self.decode(tokens),
            stop=StopReason.STOP_TOKEN if stopped else StopReason.LENGTH,
            policy_version=self.version,
            engine=self.name,
        )
