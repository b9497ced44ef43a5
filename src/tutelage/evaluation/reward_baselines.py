"""What a reward model has to beat: the length of the answers, and the words they are made of.

    length   P(a is better) = sigma(b (log length of a - log length of b))
    words    P(a is better) = sigma(w (words of a - words of b))

Both are Bradley-Terry models with linear rewards, fitted to the reward model's own training pairs
and measured on its own held-out ones. A reward model that is not better has learned nothing that
counting would not tell.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.folds import fold_of_prompts
from tutelage.records import Preference

__all__ = ["BASELINES", "cross_validated", "length_margins", "word_margins"]

Numbers = NDArray[np.float64]

_WORDS = re.compile(r"\w+|[^\w\s]")
_VOCABULARY = 1000
_PAIRS = 4000
"""Training pairs at most: more cost time and hardly move a linear model of so few words."""
_PENALTY = 1.0
"""Ridge penalty on standardised weights, in pairs."""
_STEPS = 200
_FOLDS = 5


def length_margins(training: Sequence[Preference], test: Sequence[Preference]) -> Numbers:
    """Log-odds by the length of the answers alone."""
    fitted = _fit(_log_lengths(training), _labels(training))
    return _log_lengths(test) @ fitted


def word_margins(training: Sequence[Preference], test: Sequence[Preference]) -> Numbers:
    """Log-odds by the words that the answers contain, most frequent ones only."""
    training = _spread(training, _PAIRS)
    counts = [_both_counts(row) for row in training]
    frequency: Counter[str] = Counter()
    for first, second in counts:
        frequency.update(first.keys() | second.keys())
    position = {word: i for i, (word, _) in enumerate(frequency.most_common(_VOCABULARY))}
    features = _word_features(counts, position)
    scale = np.sqrt((features**2).mean(0)) + 1e-12
    fitted = _fit(features / scale, _labels(training)) / scale
    return _word_features([_both_counts(row) for row in test], position) @ fitted


BASELINES: Mapping[str, Callable[[Sequence[Preference], Sequence[Preference]], Numbers]] = {
    "length": length_margins,
    "words": word_margins,
}
"""Each takes training pairs and test pairs and gives the margins of the latter."""


def cross_validated(
    margins: Callable[[Sequence[Preference], Sequence[Preference]], Numbers],
    preferences: Sequence[Preference],
    seed: int = 0,
) -> Numbers:
    """Margins of each pair by a baseline that learned from pairs of other prompts.

    All 0, which is no choice, where there is one prompt only.
    """
    prompts = [row.comparison.prompt.id for row in preferences]
    folds = min(_FOLDS, len(set(prompts)))
    found = np.zeros(len(preferences))
    if folds < 2:
        return found
    fold_of = fold_of_prompts(prompts, folds, seed)
    which = np.array([fold_of[prompt] for prompt in prompts])
    for fold in range(folds):
        here = [row for row, mine in zip(preferences, which == fold, strict=True) if mine]
        others = [row for row, mine in zip(preferences, which == fold, strict=True) if not mine]
        found[which == fold] = margins(others, here)
    return found


def _labels(preferences: Sequence[Preference]) -> Numbers:
    return np.array([row.p_a for row in preferences])


def _log_lengths(preferences: Sequence[Preference]) -> Numbers:
    rows = [(len(row.comparison.a), len(row.comparison.b)) for row in preferences]
    logs = np.log1p(np.array(rows, dtype=float).reshape(-1, 2))
    return logs[:, :1] - logs[:, 1:]


def _spread(rows: Sequence[Preference], most: int) -> Sequence[Preference]:
    """`most` rows from all over the sequence: files are often sorted by source."""
    if len(rows) <= most:
        return rows
    return [rows[int(i)] for i in np.linspace(0, len(rows) - 1, most)]


def _both_counts(row: Preference) -> tuple[Counter[str], Counter[str]]:
    first, second = (
        Counter(_WORDS.findall(text.lower())) for text in (row.comparison.a, row.comparison.b)
    )
    return first, second


def _word_features(
    counts: Sequence[tuple[Counter[str], Counter[str]]], position: Mapping[str, int]
) -> Numbers:
    """log(1 + count) of each word in the first answer minus that in the second."""
    features = np.zeros((len(counts), len(position)))
    for row, (first, second) in enumerate(counts):
        for sign, words in ((1.0, first), (-1.0, second)):
            for word, count in words.items():
                column = position.get(word)
                if column is not None:
                    features[row, column] += sign * np.log1p(count)
    return features


def _fit(features: Numbers, labels: Numbers) -> Numbers:
    """Ridge logistic regression through 0, by accelerated gradient descent (Nesterov 1983)."""
    weights = ahead = np.zeros(features.shape[1])
    # The Hessian is at most X'X / 4; its largest eigenvalue by a few power iterations.
    direction = np.ones(features.shape[1])
    for _ in range(8):
        direction = features.T @ (features @ direction)
        direction /= np.linalg.norm(direction) or 1.0
    curvature = 0.3 * float(np.linalg.norm(features @ direction) ** 2) + _PENALTY
    for step in range(_STEPS):
        predicted = np.exp(-np.logaddexp(0.0, -(features @ ahead)))
        gradient = features.T @ (predicted - labels) + _PENALTY * ahead
        following = ahead - gradient / curvature
        ahead = following + step / (step + 3) * (following - weights)
        weights = following
    return weights
