"""The trainings that a reward stage consists of, and what each is trained on.

one model                  model
ensemble of k              members/0 ... members/k-1
cross-validation           folds/0 ...      each without the prompts it is measured on
learning curve             curve/500 ...    fewer pairs of the last phase
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tutelage.config import RewardPhase, RewardStage
from tutelage.errors import DataError
from tutelage.evaluation.folds import fold_of_prompts
from tutelage.records import Preference
from tutelage.trainers.reward import ComparedAnswers

__all__ = ["Groups", "Job", "count_pairs", "jobs_of", "phase_steps"]

Groups = Sequence[ComparedAnswers]


@dataclass(frozen=True)
class Job:
    """One training from the backbone on."""

    name: str
    """The folder or file of what comes of it, in the stage's own."""
    seed: int
    """Of the order of the pairs, and of the score head's first weights."""
    phases: tuple[Groups, ...]
    left_out: tuple[Preference, ...] = ()
    """Preferences of the last phase that this training alone has not seen."""

    @property
    def kept(self) -> bool:
        """Whether the model is wanted, or only what it says of held-out pairs."""
        return self.name == "model" or self.name.startswith("members/")

    def steps(self, config: RewardStage) -> int:
        """Optimiser steps of all phases."""
        return sum(
            phase_steps(phase, groups, config.batch.minibatch)
            for phase, groups in zip(config.phases, self.phases, strict=True)
        )


def count_pairs(groups: Groups) -> int:
    """Number of judged pairs."""
    return sum(len(group.pairs) for group in groups)


def phase_steps(phase: RewardPhase, groups: Groups, minibatch: int) -> int:
    """Optimiser steps of one phase."""
    return max(1, math.ceil(phase.epochs * count_pairs(groups) / minibatch))


def jobs_of(
    config: RewardStage, phases: Sequence[Groups], last: Sequence[Preference], seed: int
) -> list[Job]:
    """All trainings, in the order in which they are done.

    Args:
        config: of the stage.
        phases: what each phase may train on.
        last: the preferences of the last phase, which are dealt out to folds.
        seed: of the stage.
    """
    ensemble = config.ensemble
    jobs = [Job("model", seed, tuple(phases))]
    if ensemble is not None and ensemble.data == "folds":
        jobs = _folds("members", ensemble.members, phases, last, seed)
    elif ensemble is not None:
        jobs = [
            Job(
                f"members/{i}",
                seed + i,
                tuple(phases) if ensemble.data == "all" else _bootstrap(phases, seed + i),
            )
            for i in range(ensemble.members)
        ]
    if config.folds is not None:
        jobs += _folds("folds", config.folds, phases, last, seed)
    for count in sorted(set(config.learning_curve)):
        if count < count_pairs(phases[-1]):
            part = _some_pairs(phases[-1], count, seed)
            jobs.append(Job(f"curve/{count}", seed, (*phases[:-1], part)))
    return jobs


def _folds(
    name: str, folds: int, phases: Sequence[Groups], last: Sequence[Preference], seed: int
) -> list[Job]:
    fold_of = fold_of_prompts([row.comparison.prompt.id for row in last], folds, seed)
    return [
        Job(
            f"{name}/{i}",
            seed + i,
            tuple(_outside(groups, fold_of, i) for groups in phases),
            tuple(row for row in last if fold_of[row.comparison.prompt.id] == i),
        )
        for i in range(folds)
    ]


def _outside(groups: Groups, fold_of: Mapping[str, int], fold: int) -> Groups:
    """The groups of prompts in no or another fold.

    Raises:
        DataError: there are none.
    """
    outside = [group for group in groups if fold_of.get(group.prompt) != fold]
    if not outside:
        raise DataError(
            f"a phase of the reward model has no prompts outside of fold {fold}: "
            "use fewer folds or give more prompts"
        )
    return outside


def _bootstrap(phases: Sequence[Groups], seed: int) -> tuple[Groups, ...]:
    """As many prompts as there are, drawn with replacement (Efron 1979)."""
    source = random.Random(seed)
    return tuple(source.choices(groups, k=len(groups)) for groups in phases)


def _some_pairs(groups: Groups, count: int, seed: int) -> Groups:
    """The first pairs in a fixed random order of the prompts: smaller counts are part of larger."""
    order = list(groups)
    random.Random(seed).shuffle(order)
    chosen, pairs = [], 0
    for group in order:
        if pairs >= count:
            break
        chosen.append(group)
        pairs += len(group.pairs)
    return chosen
