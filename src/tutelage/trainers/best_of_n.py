"""Best of n: no training, the reward chooses among what the policy has written.

    prompt ──pi──> y_1 ... y_n ──reward──> the best one

Its divergence from the policy is at most log n - (n - 1) / n nats (`evaluation.best_of_n`), at n
times the price of an answer. It differs from PPO in that the policy stays as it is; fine-tuning a
policy on the winners puts what they cost into its weights (RAFT, Dong et al. 2023,
arXiv:2304.06767).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tutelage.generation import Engine, Sampling
from tutelage.models import Policy
from tutelage.records import Completion, EncodedPrompt, Score
from tutelage.rewards import Reward, finite_or_failed

__all__ = ["BestOfNEngine", "Chosen", "best_scored"]


def best_scored(scores: Sequence[Score]) -> int | None:
    """The number of the highest usable score, the first among equals; None without any."""
    usable = [number for number, score in enumerate(scores) if score.ok]
    return max(usable, key=lambda number: scores[number].value) if usable else None


@dataclass(frozen=True)
class Chosen:
    """A completion and the candidates that it was chosen from, itself among them."""

    best: Completion
    candidates: Sequence[Completion]

    @property
    def num_tokens(self) -> int:
        """Tokens of all candidates: what the completion cost."""
        return sum(len(candidate.tokens) for candidate in self.candidates)


class BestOfNEngine:
    """An engine each of whose completions is the best of n of another engine's.

    What it draws has another distribution than its log-probabilities say, which are the other
    engine's: it is for evaluation, and no policy gradient may be taken from it.
    """

    def __init__(self, engine: Engine, reward: Reward, n: int) -> None:
        """Takes an engine as it is.

        Args:
            engine: draws the candidates.
            reward: chooses among them.
            n: candidates for each completion.

        Raises:
            ValueError: n is below 1.
        """
        if n < 1:
            raise ValueError(f"best of {n}: n must be at least 1")
        self.engine, self.reward, self.n = engine, reward, n

    def generate(self, prompts: Sequence[EncodedPrompt], sampling: Sampling) -> list[Completion]:
        """Draws n candidates for each completion; where none can be scored, keeps the first."""
        return [chosen.best for chosen in self.choose(prompts, sampling)]

    def choose(self, prompts: Sequence[EncodedPrompt], sampling: Sampling) -> list[Chosen]:
        """As `generate`, with what each completion was chosen from."""
        count = sampling.samples_per_prompt * self.n
        drawn = self.engine.generate(prompts, replace(sampling, samples_per_prompt=count))
        asked = [prompt.prompt for prompt in prompts for _ in range(count)]
        scores = finite_or_failed(self.reward(asked, drawn))
        groups = range(0, len(drawn), self.n)
        return [
            Chosen(
                drawn[first + (best_scored(scores[first : first + self.n]) or 0)],
                drawn[first : first + self.n],
            )
            for first in groups
        ]

    def load_weights(self, policy: Policy) -> None:
        """Makes the next candidates the given policy's."""
        self.engine.load_weights(policy)
