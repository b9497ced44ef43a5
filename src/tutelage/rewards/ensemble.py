"""Several reward models as one reward.

    r_1 ... r_k, each in its own sigmas ──> mean
                                        ├─> min                    the worst case
                                        └─> mean - lambda variance  worse where they disagree

A policy that exploits what one model happened to learn disagrees with the others, and scores less
(Coste et al. 2023, arXiv:2310.02743). What all members have learned alike, such as the annotators'
liking for length, no combination sees (Eisenstein et al. 2023, arXiv:2312.09244).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import ConfigError
from tutelage.records import Completion, Prompt, Score
from tutelage.rewards.parts import ModelReward
from tutelage.rewards.reward import Reward

__all__ = ["Combination", "EnsembleReward", "combine_scores"]

Combination = Literal["mean", "min", "uncertainty"]


def combine_scores(
    scores: NDArray[np.float64], combine: Combination, penalty: float = 0.1
) -> NDArray[np.float64]:
    """One score per sample, out of `[members, samples]`.

        mean           (r_1 + ... + r_k) / k
        min            min_i r_i                                            (WCO)
        uncertainty    mean - lambda / k sum_i (r_i - mean)^2               (UWO)

    Source: Coste et al. 2023 (arXiv:2310.02743), section 3. The members must be centred alike
    before the least of them is taken (Eisenstein et al. 2023, arXiv:2312.09244, section 2.1).

    Args:
        scores: of each member, with mean 0 and variance 1 on the reference's answers.
        combine: how.
        penalty: lambda; 0.1 in PPO and 0.5 in best-of-n there.
    """
    if combine == "min":
        least: NDArray[np.float64] = scores.min(0)
        return least
    mean: NDArray[np.float64] = scores.mean(0)
    return mean - penalty * scores.var(0) if combine == "uncertainty" else mean


class EnsembleReward:
    """The combined score of several rewards, with how far they disagree.

    A sample that one member cannot score is not scored. `measures` of a score hold the members'
    mean and their standard deviation.
    """

    def __init__(
        self,
        members: Sequence[Reward | ModelReward],
        *,
        combine: Combination = "uncertainty",
        penalty: float = 0.1,
    ) -> None:
        """Takes at least two members.

        Args:
            members: rewards in comparable units.
            combine: see `combine_scores`.
            penalty: see `combine_scores`.

        Raises:
            ConfigError: there is one member or none, which cannot disagree.
        """
        if len(members) < 2:
            raise ConfigError(
                f"an ensemble needs two reward models at least, found {len(members)}: train the "
                "reward stage with `ensemble`, or list several in reward.ensemble.models"
            )
        self.members = tuple(members)
        self.combine: Combination = combine
        self.penalty = penalty

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
        """One score per completion."""
        columns = [member(prompts, completions) for member in self.members]
        return [self._score(row) for row in zip(*columns, strict=True)]

    def _score(self, row: Sequence[Score]) -> Score:
        for number, score in enumerate(row):
            if not score.ok:
                return Score.failed(score.status, f"member {number}: {score.notes}")
        values = np.array([score.value for score in row])
        combined = float(combine_scores(values[:, None], self.combine, self.penalty)[0])
        measures = {"members": float(values.mean()), "disagreement": float(values.std())}
        return Score(combined, measures=measures)
