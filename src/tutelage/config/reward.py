"""What a policy is rewarded for: the parts that add up."""

import re
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from tutelage.config.base import Section
from tutelage.config.ensemble import EnsembleRewardConfig, GateConfig
from tutelage.config.judge import JudgeRewardConfig
from tutelage.config.stage import Reference

__all__ = [
    "DeadlinesConfig",
    "FormatConfig",
    "LengthPenaltyConfig",
    "RemoteRewardConfig",
    "RepetitionConfig",
    "RewardConfig",
]


class LengthPenaltyConfig(Section):
    """-coefficient * max(0, tokens - threshold), in units of the reward model's sigma."""

    coefficient: NonNegativeFloat | Literal["auto"] = "auto"
    """Penalty per token; auto takes `slope_factor` times the reward model's own slope."""
    threshold: NonNegativeFloat | Literal["auto", "per_prompt"] = "auto"
    """Tokens that cost nothing; auto takes the 90 % quantile of the reference's lengths, per_prompt
    that of `reference_answers` to the same prompt."""
    slope_factor: PositiveFloat = 1.5
    """Below 1 the penalty is smaller than what the reward model pays for a token."""


class RepetitionConfig(Section):
    """-weight times the share of a completion's n-grams that it has written before."""

    weight: PositiveFloat = 1.0
    """What a completion loses that writes one thing again and again."""
    size: PositiveInt = 3
    """Tokens in a row that count as one thing."""


class FormatConfig(Section):
    """`weight` for an answer of the right form, 0 for others."""

    weight: float = 1.0
    """What the form is worth."""
    pattern: str | None = None
    """A regular expression of Python that matches the whole answer."""
    json_value: bool = False
    """The whole answer is one JSON value."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.pattern is not None) == self.json_value:
            raise ValueError("a format is either a pattern or json_value: set one of them")
        return self


class DeadlinesConfig(Section):
    """How long functions and formats may take; each runs in a process that can be ended."""

    item_seconds: PositiveFloat = 30.0
    """For one completion; the process is then killed, and the next one finds a fresh process."""
    batch_seconds: PositiveFloat = 600.0
    """For all completions of a round."""


class RemoteRewardConfig(Section):
    """A reward service: `tutelage serve-reward`, or one that speaks as it does."""

    url: str
    """`http://HOST:PORT`, or with https and a path."""
    weight: float = 1.0
    """What its score is multiplied by."""
    token_env: str = "TUTELAGE_REWARD_TOKEN"
    """The environment variable that holds the token: no secret belongs into a recipe."""
    version: str | None = None
    """The only version to accept; unset takes the one found first, for the rest of the run."""
    batch_size: PositiveInt = 32
    """Completions in a request; fewer where the service takes fewer."""
    concurrency: PositiveInt = 8
    """Requests on their way at the same time."""
    item_seconds: PositiveFloat = 60.0
    """From a completion's first request to its score, retries included."""
    batch_seconds: PositiveFloat = 600.0
    """For all completions of a round."""
    retries: NonNegativeInt = 5
    """Requests made again where that may help, with pauses that double."""
    cache: str | None = None
    """A file that keeps scores by version, prompt and completion; unset keeps none."""


class RewardConfig(Section):
    """What the policy is rewarded for: the parts add up."""

    model: Reference | None = None
    """The reward model."""
    clip: PositiveFloat | None = None
    """Bound on the reward model's score, in its sigmas."""
    shape: Literal["score", "par"] = "score"
    """What the policy gets of the reward model's score. par: the mean of the sigmoid of its
    difference from the scores of `reference_answers` to the same prompt, between 0 and 1."""
    reference_answers: Reference | None = None
    """What the reference answers to the training prompts: a `sample` stage, or its file."""
    ensemble: EnsembleRewardConfig | None = None
    """Score by several reward models; `clip` then bounds the score of each."""
    gate: GateConfig | None = None
    """Thresholds that `model` must have passed before a policy is trained against it."""
    length: LengthPenaltyConfig | None = None
    """Penalty on long completions."""
    repetition: RepetitionConfig | None = None
    """Penalty on completions that repeat themselves."""
    format: FormatConfig | None = None
    """Reward for the form of an answer."""
    functions: dict[str, float] = Field(default_factory=dict)
    """Python functions `path.py:name` with their weights."""
    verifiers: dict[str, float] = Field(default_factory=dict)
    """Verifiers of answers with their weights, such as `final_number`: docs/verifiers.md."""
    deadlines: DeadlinesConfig = DeadlinesConfig()
    """Of functions and formats."""
    remote: dict[str, RemoteRewardConfig] = Field(default_factory=dict)
    """Reward services, by the names that their parts have in the log."""
    judge: JudgeRewardConfig | None = None
    """A judge model that rates completions."""

    def models(self) -> Iterator[str]:
        """The reward model and those of the ensemble."""
        if self.model is not None:
            yield self.model
        if self.ensemble is not None:
            yield from self.ensemble.references()

    def references(self) -> Iterator[str]:
        """The models, a judge in this process, and the reference's answers."""
        yield from self.models()
        if self.judge is not None and self.judge.url is None:
            yield self.judge.model
        if self.reference_answers is not None:
            yield self.reference_answers

    @model_validator(mode="after")
    def _about_a_model(self) -> Self:
        for name in ("ensemble", "gate"):
            if getattr(self, name) is not None and self.model is None:
                raise ValueError(f"{name} is set and model is not, which it is about: set model")
        return self

    @model_validator(mode="after")
    def _reference_answers_are_used(self) -> Self:
        per_prompt = self.length is not None and self.length.threshold == "per_prompt"
        rated = self.judge is not None and self.judge.against_references
        asking = [
            key
            for key, asks in (
                ("shape: par", self.shape == "par"),
                ("length.threshold: per_prompt", per_prompt),
                ("judge.against_references", rated),
            )
            if asks
        ]
        if asking and self.reference_answers is None:
            raise ValueError(
                f"{' and '.join(asking)} needs answers of the reference: set reference_answers to "
                "a sample stage of the policy to start from, on the training prompts"
            )
        if self.reference_answers is not None and not asking:
            raise ValueError(
                "reference_answers is set, but nothing reads it: set shape to 'par', "
                "length.threshold to 'per_prompt' or judge.against_references, or leave it out"
            )
        if self.shape == "par" and self.model is None:
            raise ValueError("shape is 'par', which is of the reward model's score: set model")
        return self
