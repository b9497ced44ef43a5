"""Batches of the prompts from which there is most to learn, as far as their scores tell.

    statistics of each prompt ──draw_probabilities──> batch ──a round──> scores ──hear──┐
              ^                                                                         │
              └─────────── running means of variance or pass rate, and of the score <───┘

After Foster et al. 2025 (arXiv:2502.12272). Nothing is sampled only to measure: what is known of a
prompt comes from the completions that were trained on, and is as old as its last visit. The uniform
share of the draws visits those again that had nothing to teach when they were seen last.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from tutelage.algorithms import draw_probabilities, pass_rate, score_variance
from tutelage.config import CurriculumConfig, RoundsConfig
from tutelage.errors import CheckpointError, ConfigError
from tutelage.records import EncodedPrompt, Score
from tutelage.trainers.batches import Shuffled
from tutelage.trainers.rollout import diversity_metrics
from tutelage.trainers.round import RoundStep

__all__ = ["Curriculum", "PromptBatches", "batches_of", "observed"]

Item = TypeVar("Item")


class Curriculum(Generic[Item]):
    """`steps` lists of `size` different items, drawn by what was heard of them.

    Iterating goes on from where the last iteration, or a loaded state, has got to.
    """

    def __init__(
        self,
        items: Sequence[Item],
        size: int,
        steps: int,
        generator: torch.Generator,
        config: CurriculumConfig,
    ) -> None:
        """Knows nothing of any item yet, and draws all alike.

        Args:
            items: to be drawn from.
            size: items in a batch.
            steps: batches in all.
            generator: source of the random numbers, on the processor.
            config: what counts as learnable, and for how long.

        Raises:
            ConfigError: a batch needs more items than there are.
        """
        if size > len(items):
            raise ConfigError(
                f"prompts_per_step is {size} and there are {len(items)} prompts: a curriculum "
                f"chooses among them, set prompts_per_step to less than {len(items)}"
            )
        self.items = items
        self.size = size
        self.steps = steps
        self.generator = generator
        self.config = config
        self.taken = 0
        """Batches handed out so far."""
        unknown = torch.full((len(items),), torch.nan, dtype=torch.float64)
        self.known = unknown
        """Running variance of each item's scores, or its pass rate; NaN before it was seen."""
        self.scores = unknown.clone()
        """Running mean of each item's scores."""
        self._drawn: list[int] = []

    def __iter__(self) -> Iterator[list[Item]]:
        """The batches that are left."""
        while self.taken < self.steps:
            drawn = torch.multinomial(self.probabilities, self.size, generator=self.generator)
            self._drawn = drawn.tolist()
            self.taken += 1
            yield [self.items[i] for i in self._drawn]

    @property
    def probabilities(self) -> Tensor:
        """Of the first draw of a batch, for each item; later ones leave out what was drawn."""
        weights = self.known
        if self.config.by == "window":
            inside = (weights >= self.config.low) & (weights <= self.config.high)
            weights = torch.where(weights.isnan(), weights, inside.double())
        return draw_probabilities(weights, uniform_share=self.config.uniform_share)

    def hear(self, scores: Sequence[Score]) -> dict[str, float]:
        """Takes note of how the last batch was scored.

        Scores that are not usable do not count. An item with too few of the others stays as it was.

        Args:
            scores: of every completion, those of an item one after the other.

        Returns:
            `curriculum/seen`, the share of all items of which anything is known;
            `curriculum/score`, their running score, each counted once;
            `curriculum/breadth`, 1 / Σ q², the number of items that draws are spread over, as a
            share of all.
        """
        usable = [score.value if score.ok else torch.nan for score in scores]
        groups = torch.tensor(usable, dtype=torch.float64).view(len(self._drawn), -1)
        if self.config.by == "window":
            newest = pass_rate(groups, pass_score=self.config.pass_score)
        else:
            newest = score_variance(groups)
        self._remember(self.known, newest)
        self._remember(self.scores, groups.nanmean(1))
        q = self.probabilities
        return {
            "curriculum/seen": float((~self.known.isnan()).double().mean()),
            "curriculum/score": float(self.scores.nanmean().nan_to_num()),
            "curriculum/breadth": float(1.0 / q.square().sum() / len(q)),
        }

    def _remember(self, running: Tensor, newest: Tensor) -> None:
        before = running[self._drawn]
        mixed = self.config.decay * before + (1.0 - self.config.decay) * newest
        heard = torch.where(before.isnan(), newest, mixed)
        running[self._drawn] = torch.where(newest.isnan(), before, heard)

    def state_dict(self) -> dict[str, Any]:
        """How far it has got and what it has heard; the items themselves belong to the data."""
        return {
            "items": len(self.items),
            "taken": self.taken,
            "known": self.known.clone(),
            "scores": self.scores.clone(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            CheckpointError: it is the state of another number of items.
        """
        if state["items"] != len(self.items):
            raise CheckpointError(
                f"it was made with {state['items']} rows of data and there are {len(self.items)}"
            )
        self.taken = state["taken"]
        self.known = state["known"].clone()
        self.scores = state["scores"].clone()
        self.generator.set_state(state["generator"])


PromptBatches = Shuffled[EncodedPrompt] | Curriculum[EncodedPrompt]
"""The prompts of each round; part of the stage's state."""


def batches_of(
    config: RoundsConfig, prompts: Sequence[EncodedPrompt], generator: torch.Generator
) -> PromptBatches:
    """The prompts of each round: by the curriculum where there is one, all in turn otherwise.

    Raises:
        ConfigError: a curriculum has fewer prompts than a round.
    """
    size, steps = config.prompts_per_step, config.steps
    if config.curriculum is None:
        return Shuffled(prompts, size, steps, generator)
    return Curriculum(prompts, size, steps, generator, config.curriculum)


def observed(
    rounds: Iterable[RoundStep], prompts: PromptBatches, config: RoundsConfig
) -> Iterator[RoundStep]:
    """The rounds with metrics of how they explored; a curriculum hears their scores.

    Args:
        rounds: by any learner, not begun yet.
        prompts: where the learner takes its prompts.
        config: of the rounds.
    """
    for step in rounds:
        metrics = {"sampling/temperature": config.temperature_at(step.index)}
        metrics |= diversity_metrics(step.completions, config.sampling.samples_per_prompt)
        if isinstance(prompts, Curriculum):
            metrics |= prompts.hear(step.scores)
        yield replace(step, metrics={**step.metrics, **metrics})
