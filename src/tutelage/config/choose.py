"""Settings of the stage that builds comparisons and chooses whom to ask about which."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from tutelage.config.base import Section
from tutelage.config.stage import Reference, StageSection
from tutelage.config.training import Share

__all__ = ["ChooseStage", "CostsConfig", "SharesConfig", "TrustConfig"]

ProperShare = Annotated[float, Field(gt=0.0, lt=1.0)]


class SharesConfig(Section):
    """How the comparisons that people are asked about are chosen.

    Shares of people's places, relative to each other; with none of them all are random.
    """

    random: NonNegativeFloat = 0.0
    """A sample of all. A tenth to a fifth is well spent: no other part tells how often the judge
    is right."""
    category: NonNegativeFloat = 0.0
    """At random among `categories`."""
    doubt: NonNegativeFloat = 0.0
    """Where the judge is least sure, or says another thing when the order is turned; needs
    `judged`."""
    conflict: NonNegativeFloat = 0.0
    """Where the judge and the reward models are sure of opposite answers; needs `judged` and
    `reward`, and reward models that have seen people's labels."""
    disagreement: NonNegativeFloat = 0.0
    """Where the reward models differ most; needs two of them."""
    length: NonNegativeFloat = 0.0
    """Pairs alike and unlike in length, equally many of each kind."""


class CostsConfig(Section):
    """Units per judged comparison."""

    people: PositiveInt = 11
    """Of a person's."""
    judge: PositiveInt = 1
    """Of the judge's."""


class TrustConfig(Section):
    """How sure the judge must be for its answers to stand (Jung et al. 2024, arXiv:2407.18370).

    The confidence is found on comparisons that people and the judge have both judged.
    """

    disagreement: ProperShare = 0.2
    """Share of the answers that stand which may differ from people's."""
    failure: ProperShare = 0.1
    """How probable it may be that more of them do."""


class ChooseStage(StageSection):
    """Builds comparisons from samples and chooses whom to ask about which.

    Writes comparisons for people to `people.jsonl` and for the judge to `judge.jsonl`, for `label`
    stages to read; those that the judge has answered already, and that it keeps, go to
    `answered.jsonl` as preferences.
    """

    kind: Literal["choose"] = "choose"
    samples: tuple[Reference, ...]
    """Stages or files with completions. Those of several models, or of several temperatures, to
    the same prompts are compared with each other."""
    limit: PositiveInt | None = None
    """Use only the first prompts of each."""
    pairs: Literal["all", "across", "extremes"] = "all"
    """Which completions of a prompt are compared. all: every two. across: those of different
    `samples`. extremes: the best by the reward models' mean score with the worst."""
    pairs_per_prompt: PositiveInt | None = None
    """Comparisons of a prompt at most, drawn at random; unset takes all."""
    judged: tuple[Reference, ...] = ()
    """Preferences that are there already. What a person has judged is not asked again; a judge's
    answers say where it is unsure, and cost nothing more."""
    reward: tuple[Reference, ...] = ()
    """Reward models, each with the members of its ensemble."""
    budget: PositiveInt
    """Units to spend."""
    people: Share = 0.5
    """Share of the budget for people; the judge gets the rest."""
    shares: SharesConfig = SharesConfig()
    """How people's comparisons are chosen."""
    categories: tuple[str, ...] = ()
    """Categories of prompts that people alone decide: the judge is never asked about them."""
    per_prompt: PositiveInt | None = None
    """Comparisons of a prompt that people are asked about at most."""
    trust: TrustConfig | None = None
    """Drop the judge's answers of which it is not sure enough; unset keeps them all. Needs
    comparisons in `judged` that people and the judge have both judged, chosen at random."""
    costs: CostsConfig = CostsConfig()
    """What a label costs."""

    def references(self) -> Iterator[str]:
        """The samples, the preferences and the reward models."""
        yield from self.samples
        yield from self.judged
        yield from self.reward

    @model_validator(mode="after")
    def _known_before_it_is_used(self) -> Self:
        needs = {
            "shares.category": (self.shares.category, {"categories": self.categories}),
            "shares.doubt": (self.shares.doubt, {"judged": self.judged}),
            "shares.conflict": (
                self.shares.conflict,
                {"judged": self.judged, "reward": self.reward},
            ),
            "shares.disagreement": (self.shares.disagreement, {"reward": self.reward}),
            "trust": (self.trust is not None, {"judged": self.judged}),
            "pairs: extremes": (self.pairs == "extremes", {"reward": self.reward}),
        }
        for name, (used, needed) in needs.items():
            missing = [key for key, value in needed.items() if not value]
            if used and missing:
                raise ValueError(f"{name} needs {' and '.join(missing)}: set it, or leave this out")
        if self.pairs == "across" and len(self.samples) < 2:
            raise ValueError(
                f"pairs is 'across' and samples has {len(self.samples)} entry: give the samples of "
                "two models, or set pairs to 'all'"
            )
        return self
