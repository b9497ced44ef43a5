"""A judge model: where it is, what it goes by, and what it may cost."""

import json
from typing import Any, Literal, Self

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
from tutelage.config.training import Share

__all__ = ["GENERAL_RUBRIC", "JudgeConfig", "JudgeRewardConfig", "file_of", "is_judge_file"]

GENERAL_RUBRIC = "general"
"""The rubric that comes with the package."""


def file_of(name: str) -> str:
    """The file that `path.py:name` or the path of a file names."""
    path, _, _ = name.rpartition(":")
    return path if path.endswith(".py") else name


def is_judge_file(name: str) -> bool:
    """Whether the name is that of a file with a judge's configuration."""
    return name.endswith((".yaml", ".yml"))


class JudgeConfig(Section):
    """A language model that says which of two answers is better, or how good one is."""

    model: str
    """The model's name at `url`; without one, the folder of a model, or of the stage that trained
    it."""
    url: str | None = None
    """An OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1 or https://api.openai.com/v1;
    unset runs the model in this process."""
    token_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the endpoint's token; endpoints on this machine may do
    without."""
    rubric: str = GENERAL_RUBRIC
    """What makes an answer good: a text file, a YAML file with `rubric` and `criteria`, or the
    rubric `general` that comes with Tutelage."""
    reasons: bool = False
    """Let the judge weigh the answers in words before it decides; twice the requests."""
    probabilities: Literal["auto", "tokens", "samples", "decisions"] = "auto"
    """Where they come from: the log-probabilities of the answer's token, the shares of several
    samples, or the former where the endpoint gives them; or a model that only decides, by
    POST /decisions."""
    samples: PositiveInt = 5
    """Replies drawn of each question where there are no log-probabilities."""
    min_mass: Share = 0.5
    """What the possible replies must have of the probability between them; below, the reply counts
    as unreadable."""
    reason_tokens: PositiveInt = 512
    """Longest reasons."""
    concurrency: PositiveInt = 8
    """Requests on their way at the same time."""
    seconds: PositiveFloat = 120.0
    """For one request."""
    retries: NonNegativeInt = 8
    """Requests made again where that may help, with pauses that double."""
    cache: str | None = None
    """A file that keeps replies, so that none is asked for twice, and what was spent."""
    max_tokens: NonNegativeInt | None = None
    """Tokens of all requests that were ever made through the cache; the judge stops before."""
    max_cost: NonNegativeFloat | None = None
    """The same in money; needs prices."""
    price_in: NonNegativeFloat = 0.0
    """Price of a million tokens of questions."""
    price_out: NonNegativeFloat = 0.0
    """Price of a million tokens of replies."""
    extra: str = Field(default="{}")
    """More fields of every request, as a JSON object, such as
    '{"chat_template_kwargs": {"enable_thinking": false}}'."""

    @property
    def extra_fields(self) -> dict[str, Any]:
        """`extra`, read."""
        fields: dict[str, Any] = json.loads(self.extra)
        return fields

    @field_validator("extra")
    @classmethod
    def _is_an_object(cls, extra: str) -> str:
        try:
            read = json.loads(extra)
        except ValueError:
            read = None
        if not isinstance(read, dict):
            raise ValueError(f"{extra!r} is no JSON object")
        return extra

    @model_validator(mode="after")
    def _money_needs_prices(self) -> Self:
        if self.max_cost is not None and not self.price_in + self.price_out > 0:
            raise ValueError(
                "max_cost is set and no price is: set price_in and price_out, of a million tokens, "
                "or limit max_tokens instead"
            )
        return self


class JudgeRewardConfig(JudgeConfig):
    """A judge model's rating of each completion as the reward (d-RLAIF), in [-1, 1]."""

    weight: float = 1.0
    """What the rating is multiplied by."""
    against_references: bool = False
    """Take off the mean rating of `reference_answers` to the same prompt."""
