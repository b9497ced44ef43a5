"""Several reward models in place of one, and what is asked of a reward model before it is used."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from tutelage.config.base import Section
from tutelage.config.stage import Reference
from tutelage.config.training import Share

__all__ = ["EnsembleConfig", "EnsembleRewardConfig", "GateConfig"]


class EnsembleConfig(Section):
    """Several reward models from one backbone, in the folder `members` of the stage."""

    members: Annotated[int, Field(ge=2)] = 4
    """How many; 4 or 5 do what more would do."""
    data: Literal["all", "folds", "bootstrap"] = "all"
    """What members differ in beside the order of the pairs and the first weights of the score head.
    all: nothing. folds: each leaves out another fold of the prompts, on which it is then measured.
    bootstrap: each draws as many prompts as there are, with replacement."""
    combine: Literal["scores", "weights"] = "scores"
    """What `model` is, for whoever reads one reward model. scores: the first member. weights: the
    mean of all members' weights (WARM), which then begin with the same score head."""


class EnsembleRewardConfig(Section):
    """How the scores of several reward models become one."""

    combine: Literal["mean", "min", "uncertainty"] = "uncertainty"
    """mean; min: the worst case; uncertainty: mean - penalty * variance."""
    penalty: NonNegativeFloat = 0.1
    """Weight of the variance of the members' scores, in their sigmas, under `uncertainty`."""
    models: tuple[Reference, ...] = ()
    """The reward models; empty takes the members of the stage that `reward.model` names."""

    def references(self) -> Iterator[str]:
        """The reward models."""
        yield from self.models


class GateConfig(Section):
    """What the reward model must have shown on held-out pairs before anything is trained by it."""

    action: Literal["fail", "warn"] = "fail"
    """fail: the stage ends with the reasons. warn: it says them and goes on."""
    accuracy: Share | None = None
    """Least held-out accuracy."""
    similar_length_accuracy: Share | None = None
    """Least accuracy on pairs of nearly equal length."""
    worst_group_accuracy: Share | None = None
    """Least accuracy of any source, category, strength or kind of annotator with ten pairs."""
    ece: Share | None = None
    """Largest calibration error."""
    beats_length: bool = True
    """Whether it must be better than the length of the answers alone, with 95 % confidence."""
    beats_words: bool = False
    """Whether it must be better than a bag of words, with 95 % confidence."""
