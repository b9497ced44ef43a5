"""Settings of online DPO (Guo et al. 2024)."""

from typing import ClassVar, Literal, Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from tutelage.config.dpo import DPOConfig
from tutelage.config.rounds import RoundsConfig, SamplingConfig

__all__ = ["OnlineDPOConfig"]


class OnlineDPOConfig(RoundsConfig):
    """Online DPO: of each prompt's completions the best is preferred to the worst.

    A minibatch is of pairs, of which a prompt has one at most.
    """

    section: ClassVar[str] = "online_dpo"
    compares: ClassVar[str] = "the best completion of a prompt is preferred to its worst"
    pull: ClassVar[str] = "loss.beta"
    completions_per_row: ClassVar[int] = 2

    sampling: SamplingConfig = SamplingConfig(samples_per_prompt=2)
    epochs: PositiveInt = 1
    """Passes over each round's pairs."""
    loss: DPOConfig = DPOConfig()
    judge: str | None = None
    """A Python function `path.py:name` of comparisons, which returns the probability that `a` is
    the better answer of each, or None; or a YAML file that describes a judge model
    (`JudgeConfig`). It is asked in the place of the reward, about the first two completions of a
    prompt, the next two and so on, each pair in both orders."""
    label: Literal["hard", "soft"] = "hard"
    """hard: the completion with the higher score is the better one. soft: with the probability
    sigma((r_a - r_b) / label_temperature)."""
    label_temperature: PositiveFloat = 1.0
    """Scores' difference that makes soft labels e to 1."""

    @model_validator(mode="after")
    def _labels_come_from_one_side(self) -> Self:
        if self.judge is not None and self.label != "hard":
            raise ValueError(
                f"label is {self.label!r}, which makes labels of scores, and judge gives "
                "probabilities itself: leave one of the two out"
            )
        return self

    @property
    def updates_per_step(self) -> int:
        """A pair for each prompt, or one for every two completions that a judge is shown."""
        each = 1 if self.judge is None else self.sampling.samples_per_prompt // 2
        return self.prompts_per_step * each

    @property
    def beta(self) -> float:
        """`loss.beta`."""
        return self.loss.beta

    @property
    def passes(self) -> int:
        """Epochs."""
        return self.epochs

    def _rows_in_words(self) -> str:
        return f"pairs, one for each of prompts_per_step {self.prompts_per_step}"
