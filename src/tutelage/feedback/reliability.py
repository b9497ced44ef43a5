"""How reliable annotators are, told by how they agree with each other.

    judgements ──> verdicts per comparison ──EM──> P(first is better), accuracy of each annotator
                                                            └──> weight when a reward model trains

Nobody knows which answer is better. Dawid and Skene (1979, doi:10.2307/2346806) take it for a
hidden class z of each comparison, ask how often each annotator reports it, and estimate both in
turn. Which of two answers is called the first is arbitrary here, so that the classes have equal
priors and each annotator one accuracy q (the model of Ghosh, Kale and McAfee 2011,
doi:10.1145/1993574.1993599):

    P(v | z = 1) = q^v (1 - q)^(1 - v)        v: 1 for the first answer, 0 for the other, 1/2 a tie

A tie thus says nothing of z and counts as half an error. A Beta prior, worth a few judgements,
decides where the data cannot: who shares no comparison with anybody keeps the prior's accuracy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tutelage.feedback.identity import comparison_key, p_first
from tutelage.records import Preference

__all__ = [
    "Annotator",
    "DawidSkene",
    "accuracy_from_agreement",
    "annotators",
    "dawid_skene",
    "pairwise_accuracies",
]

Model = Literal["agreement", "dawid-skene"]

PRIOR_ACCURACY = 0.7
PRIOR_JUDGEMENTS = 5.0
_MARGIN = 1e-6
"""Keeps accuracies off 0 and 1, where one judgement would outweigh all others."""
_LEAST_WEIGHT = 0.01
"""Of an annotator who is no better than chance: next to nothing, and never a division by zero."""


@dataclass(frozen=True)
class DawidSkene:
    """What `dawid_skene` has found."""

    accuracy: np.ndarray
    """Of each annotator."""
    p: np.ndarray
    """Of each item, the probability of class 1."""
    log_posterior: float
    """Of the votes and the accuracies, up to the prior's constant; EM never lowers it."""


def dawid_skene(
    items: np.ndarray,
    annotators: np.ndarray,
    votes: np.ndarray,
    *,
    prior_accuracy: float = PRIOR_ACCURACY,
    prior_judgements: float = PRIOR_JUDGEMENTS,
    tolerance: float = 1e-9,
    most_steps: int = 10_000,
) -> DawidSkene:
    """Fits one accuracy per annotator by expectation maximisation.

        E: p_i = sigmoid(sum_j (2 v_ij - 1) logit q_j)
        M: q_j = (sum_i [p_i v_ij + (1 - p_i) (1 - v_ij)] + c m) / (n_j + c)

    with c `prior_judgements` and m `prior_accuracy`: the mode under a Beta(1 + c m, 1 + c (1 - m))
    prior. Above 1/2, it also decides between a solution and its mirror image, in which everybody
    is wrong as often as they were right.

    Args:
        items: `[votes]` numbers from 0 of what was voted on.
        annotators: `[votes]` numbers from 0 of who voted.
        votes: `[votes]` each in [0, 1]; 1/2 is a tie.
        prior_accuracy: mode of the prior, and where EM starts.
        prior_judgements: how many judgements the prior is worth.
        tolerance: change of an accuracy below which EM ends.
        most_steps: where it ends in any case.
    """
    num_annotators = int(annotators.max(initial=-1)) + 1
    counts = np.bincount(annotators, minlength=num_annotators)
    q = np.full(num_annotators, prior_accuracy)
    for _ in range(most_steps):
        p = _posterior(items, annotators, votes, q)[0]
        right = p[items] * votes + (1 - p[items]) * (1 - votes)
        total = np.bincount(annotators, right, num_annotators)
        new = (total + prior_judgements * prior_accuracy) / (counts + prior_judgements)
        new = new.clip(_MARGIN, 1 - _MARGIN)
        change = np.abs(new - q).max(initial=0.0)
        q = new
        if change < tolerance:
            break
    p, log_likelihood = _posterior(items, annotators, votes, q)
    right, wrong = prior_judgements * prior_accuracy, prior_judgements * (1 - prior_accuracy)
    log_prior = float((right * np.log(q) + wrong * np.log1p(-q)).sum())
    return DawidSkene(q, p, log_likelihood + log_prior)


def _posterior(
    items: np.ndarray, annotators: np.ndarray, votes: np.ndarray, q: np.ndarray
) -> tuple[np.ndarray, float]:
    """P(z = 1) of each item, and the log-likelihood of all votes."""
    num_items = int(items.max(initial=-1)) + 1
    right, wrong = np.log(q)[annotators], np.log1p(-q)[annotators]
    one = np.bincount(items, votes * right + (1 - votes) * wrong, num_items)
    zero = np.bincount(items, votes * wrong + (1 - votes) * right, num_items)
    both = np.logaddexp(one, zero)
    return np.exp(one - both), float((both - np.log(2)).sum())


def accuracy_from_agreement(
    agreement: float | np.ndarray, others: float | None = None
) -> np.ndarray:
    """Accuracy of an annotator who agrees with others this often, all erring independently.

        2 a - 1 = (2 q - 1) (2 q' - 1)

    Args:
        agreement: a, the share of equal verdicts.
        others: q', the others' accuracy; without, they are as accurate as the annotator, and
            q = (1 + sqrt(2 a - 1)) / 2.
    """
    edge = 2 * np.asarray(agreement, dtype=float) - 1
    own = np.sqrt(edge.clip(0)) if others is None else edge / (2 * others - 1)
    return (1 + own) / 2


def pairwise_accuracies(
    items: np.ndarray,
    annotators: np.ndarray,
    votes: np.ndarray,
    *,
    prior_accuracy: float = PRIOR_ACCURACY,
    prior_judgements: float = PRIOR_JUDGEMENTS,
) -> np.ndarray:
    """Accuracy of each annotator from how often they agree with each other annotator of an item.

    The simple model beside Dawid and Skene's: everybody's partners are taken to be as accurate as
    annotators are on average. Two votes v, w agree by v w + (1 - v) (1 - w). The prior is worth
    `prior_judgements` agreements.
    """
    num_annotators, num_items = (int(x.max(initial=-1)) + 1 for x in (annotators, items))
    votes_of_item = np.bincount(items, minlength=num_items)
    sum_of_item = np.bincount(items, votes, num_items)
    partners = votes_of_item[items] - 1
    for_first = sum_of_item[items] - votes
    agreeing = votes * for_first + (1 - votes) * (partners - for_first)
    agreed = np.bincount(annotators, agreeing, num_annotators)
    compared = np.bincount(annotators, partners, num_annotators)
    expected = 1 - 2 * prior_accuracy * (1 - prior_accuracy)
    shrunk = (agreed + prior_judgements * expected) / (compared + prior_judgements)
    pooled = np.average(shrunk, weights=compared + prior_judgements) if len(shrunk) else 0.5
    average = float(accuracy_from_agreement(max(pooled, 0.5 + _MARGIN)))
    return accuracy_from_agreement(shrunk, average).clip(_MARGIN, 1 - _MARGIN)


@dataclass(frozen=True, slots=True)
class Annotator:
    """How much one annotator's judgements are worth."""

    judgements: int
    shared: int
    """Of them, on comparisons that somebody else has judged as well: what the estimate rests on."""
    accuracy: float
    """Estimated share of verdicts that name the better answer."""
    weight: float
    """Factor on the pair when a reward model trains; 1 on the average of all judgements.

    Proportional to 2 q - 1: among weights of independent votes that are right with probability q,
    this maximises the ratio of their sum's mean to its standard deviation.
    """


def annotators(preferences: Sequence[Preference], model: Model) -> dict[str, Annotator]:
    """Every annotator by name, from comparisons of the same texts, whatever their ids.

    A soft label counts as a vote for the side it is on: how sure an annotator says to be is for
    the loss to take into account. An annotator's several votes on one item count one by one.
    """
    names = sorted({preference.annotator for preference in preferences})
    if not names:
        return {}
    number = {name: i for i, name in enumerate(names)}
    contents = [comparison_key(preference.comparison) for preference in preferences]
    place = {content: i for i, content in enumerate(dict.fromkeys(contents))}
    items = np.array([place[content] for content in contents])
    who = np.array([number[preference.annotator] for preference in preferences])
    votes = np.array([_vote(p_first(preference)) for preference in preferences])
    if model == "dawid-skene":
        accuracy = dawid_skene(items, who, votes).accuracy
    else:
        accuracy = pairwise_accuracies(items, who, votes)
    judgements = np.bincount(who, minlength=len(names))
    shared = np.bincount(who, _by_several(items, who), len(names)).astype(int)
    weight = np.maximum(2 * accuracy - 1, _LEAST_WEIGHT)
    weight = weight / np.average(weight, weights=judgements)
    return {
        name: Annotator(int(judgements[i]), int(shared[i]), float(accuracy[i]), float(weight[i]))
        for name, i in number.items()
    }


def _vote(p: float) -> float:
    return 0.5 if abs(p - 0.5) < 1e-9 else float(p > 0.5)


def _by_several(items: np.ndarray, who: np.ndarray) -> np.ndarray:
    """Of each vote, whether another annotator has voted on its item."""
    least, most = np.full(items.max() + 1, who.max()), np.zeros(items.max() + 1, who.dtype)
    np.minimum.at(least, items, who)
    np.maximum.at(most, items, who)
    return least[items] != most[items]
