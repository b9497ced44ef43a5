"""Prompts dealt out to folds, and what models that left out different folds have in common."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["agreement", "disagreement_finds_errors", "fold_of_prompts"]


def fold_of_prompts(prompts: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """The fold of each prompt; all pairs of a prompt are in one, and folds differ by one at most.

    Args:
        prompts: ids, in any order and number.
        folds: how many.
        seed: of the dealing.
    """
    ids = sorted(set(prompts))
    random.Random(seed).shuffle(ids)
    return {prompt: number % folds for number, prompt in enumerate(ids)}


def agreement(margins: NDArray[np.float64]) -> dict[str, Any]:
    """How alike several models judge the same pairs.

    Args:
        margins: `[models, pairs]`.

    Returns:
        same_choice: share of pairs of models and of answers with the same winner; chance is 0.5
            for models that choose either answer equally often.
        correlation: mean over pairs of models.
    """
    signs = np.sign(margins)
    same, correlations = [], []
    for i in range(len(margins)):
        for j in range(i):
            same.append(float((signs[i] == signs[j]).mean()))
            if np.ptp(margins[i]) > 0 and np.ptp(margins[j]) > 0:
                correlations.append(float(np.corrcoef(margins[i], margins[j])[0, 1]))
    return {
        "models": len(margins),
        "same_choice": float(np.mean(same)) if same else 1.0,
        "correlation": float(np.mean(correlations)) if correlations else 0.0,
    }


def disagreement_finds_errors(
    margins: NDArray[np.float64], right: NDArray[np.float64]
) -> float | None:
    """Probability that the models disagree more about a pair they get wrong than about a right one.

    The area under the ROC curve (Hanley & McNeil 1982) of their standard deviation, which is 0.5
    where disagreement says nothing. None where all are right or all are wrong.

    Args:
        margins: `[models, pairs]`.
        right: whether the mean margin is right, per pair; ties are left out.
    """
    spread = margins.std(0)
    wrong, correct = spread[right == 0.0], spread[right == 1.0]
    if not len(wrong) or not len(correct):
        return None
    ordered = np.sort(correct)
    below = np.searchsorted(ordered, wrong, "left") + np.searchsorted(ordered, wrong, "right")
    return float(below.mean() / (2 * len(correct)))
