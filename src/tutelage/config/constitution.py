"""The stages that follow a constitution: revised answers, and preferences under principles.

ConstitutionStage: constitution, samples, writer
  ├─> ReviseStage ──> demonstrations
  └─> PreferStage ──> preferences
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from tutelage.config.base import Section
from tutelage.config.rounds import SamplingConfig
from tutelage.config.stage import Reference, StageSection
from tutelage.config.training import Share

__all__ = ["ConstitutionStage", "EndpointConfig", "PreferStage", "ReviseStage"]


class EndpointConfig(Section):
    """A chat model behind an OpenAI-compatible endpoint."""

    model: str
    """As the service calls it."""
    url: str = "https://api.openai.com/v1"
    """Of the service, down to `/v1`."""
    token_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; empty where the service needs none. Services on
    this machine may do without."""
    max_tokens: PositiveInt = 512
    """Of a text; one that is cut off there is a failure."""
    temperature: NonNegativeFloat = 0.7
    """Of the texts."""
    concurrency: PositiveInt = 8
    """Requests on their way at the same time."""
    retries: NonNegativeInt = 4
    """Made where the same request may succeed later."""
    seconds: PositiveFloat = 120.0
    """For one attempt."""
    max_total_tokens: NonNegativeInt | None = None
    """Tokens of all requests that the stage of this run has ever made; it stops before."""


class ConstitutionStage(StageSection):
    """What both stages say: which principles, which answers, and who writes."""

    kind: str
    constitution: str
    """A bundled one by its name (`tutelage constitution show`), or a file that ends in `.yaml`."""
    samples: Reference | None = None
    """The stage or file with the answers."""
    limit: PositiveInt | None = None
    """Use only the first prompts."""
    writer: Literal["model", "endpoint", "helpdesk"] = "model"
    """Who reads the principles: a model in this process, an endpoint, or the rules of the helpdesk
    world, which stand in for a model there."""
    model: Reference | None = None
    """The model, with `writer: model`."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, max_tokens=256)
    """How the model writes."""
    max_prompt_tokens: PositiveInt = 1024
    """Tokens of a conversation that the model reads at most; longer ones are failures."""
    endpoint: EndpointConfig | None = None
    """The endpoint, with `writer: endpoint`."""
    batch: PositiveInt = 64
    """Prompts that are handled together, and after which the stage can go on when interrupted."""
    max_failed_share: Share = 0.25
    """Stop when a larger share of all has failed."""

    def references(self) -> Iterator[str]:
        """The constitution's file, the samples and the model."""
        if self.constitution.endswith((".yaml", ".yml")):
            yield self.constitution
        for reference in (self.samples, self.model):
            if reference is not None:
                yield reference

    @model_validator(mode="after")
    def _writer_is_given(self) -> Self:
        for name in ("model", "endpoint"):
            if (self.writer == name) != (getattr(self, name) is not None):
                given = "is missing" if self.writer == name else "is given"
                raise ValueError(
                    f"writer is {self.writer!r} and {name} {given}: {name} belongs to writer "
                    f"{name!r}, which needs it"
                )
        if self.sampling.samples_per_prompt != 1:
            raise ValueError(
                f"sampling.samples_per_prompt is {self.sampling.samples_per_prompt}: a writer "
                "writes one text at a time, set it to 1"
            )
        return self


class ReviseStage(ConstitutionStage):
    """Criticises and revises answers under principles, and writes them as demonstrations.

    The answers are those of `samples`, the first of each prompt; or, for `prompts`, the writer's.
    """

    kind: Literal["revise"] = "revise"
    prompts: Reference | None = None
    """A file of the `prompts` schema, which the writer answers first."""
    rounds: PositiveInt = 4
    """Critiques and revisions of each answer, each under a principle drawn at random."""

    def references(self) -> Iterator[str]:
        """What every such stage reads, and the prompts."""
        yield from super().references()
        if self.prompts is not None:
            yield self.prompts

    @model_validator(mode="after")
    def _one_source_of_answers(self) -> Self:
        if (self.samples is None) == (self.prompts is None):
            found = "neither" if self.samples is None else "both"
            raise ValueError(
                f"found {found} of samples and prompts: give samples to revise answers, or prompts "
                "to have the writer answer them first"
            )
        if self.prompts is not None and self.writer == "helpdesk":
            raise ValueError(
                "writer is 'helpdesk', whose rules revise answers and write none: give samples"
            )
        return self


class PreferStage(ConstitutionStage):
    """Judges pairs of answers under principles, in both orders, and writes preferences."""

    kind: Literal["prefer"] = "prefer"
    pairs_per_prompt: PositiveInt = 1
    """Comparisons built from each prompt's answers."""
    principles: PositiveInt | None = 4
    """Principles drawn for each comparison, whose verdicts are averaged; null asks all of them."""
    certainty: Annotated[float, Field(ge=0.5, le=1.0)] = 1.0
    """Probabilities are clamped to [1 - certainty, certainty]; a judge that reasons first is too
    sure of itself."""

    @model_validator(mode="after")
    def _there_are_samples(self) -> Self:
        if self.samples is None:
            raise ValueError("samples is missing: pairs are made of several answers to a prompt")
        return self
