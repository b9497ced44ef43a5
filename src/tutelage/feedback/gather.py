"""From completions to comparisons, and how far two sources of preferences agree.

prompt, n completions ──pairs──> comparisons ──Gatherer──> preferences ──agreement──> kappa
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from statistics import fmean
from typing import Protocol

from tutelage.data.loaders import Samples
from tutelage.data.text import normalize
from tutelage.errors import DataError
from tutelage.records import Comparison, Preference, Prompt

__all__ = [
    "Agreement",
    "Gatherer",
    "Pairing",
    "agreement",
    "pairs",
    "pairs_of_samples",
    "turned",
    "verdict",
    "verdict_agreement",
]


class Gatherer(Protocol):
    """Whoever judges: people, a judge model, a simulation."""

    def __call__(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """Returns one preference for each comparison, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Pairing:
    """Comparisons, and how many pairs had the same text twice."""

    comparisons: tuple[Comparison, ...]
    num_identical: int


def pairs(
    prompt: Prompt,
    completions: Sequence[str],
    *,
    among: Iterable[tuple[int, int]] | None = None,
    count: int | None = None,
    seed: int = 0,
) -> Pairing:
    """Pairs up the completions of a prompt.

    Pairs of equal texts, white space aside, are left out and counted. Which text comes first is
    drawn for each pair, so that no annotator can profit from the order of sampling. The draw
    depends on `seed` and the prompt's id alone.

    Args:
        prompt: what was answered.
        completions: the texts, in the order of sampling.
        among: positions of the completions that may be compared, the smaller first; all without it.
        count: this many pairs at most, drawn at random; all pairs without it.
        seed: of the draws.
    """
    random = Random(f"{seed}/{prompt.id}")
    same_text = [normalize(text) for text in completions]
    both = list(combinations(range(len(completions)), 2) if among is None else among)
    different = [(i, j) for i, j in both if same_text[i] != same_text[j]]
    chosen = different
    if count is not None and count < len(different):
        chosen = sorted(random.sample(different, count))
    comparisons = []
    for i, j in chosen:
        comparison = Comparison(prompt, completions[i], completions[j], f"{prompt.id}/{i}-{j}")
        comparisons.append(comparison.swap() if random.random() < 0.5 else comparison)
    return Pairing(tuple(comparisons), len(both) - len(different))


def pairs_of_samples(
    samples: Sequence[Samples], *, count: int | None = None, seed: int = 0
) -> Pairing:
    """Pairs up the completions of each prompt, as `pairs`; at least one is different.

    Raises:
        DataError: there is nothing to compare.
    """
    each = [pairs(row.prompt, row.completions, count=count, seed=seed) for row in samples]
    comparisons = tuple(comparison for pairing in each for comparison in pairing.comparisons)
    if not comparisons:
        raise DataError(
            f"the samples of {len(samples)} prompts give no pair of different completions: draw "
            "at least 2 samples per prompt, at a temperature above 0"
        )
    return Pairing(comparisons, sum(pairing.num_identical for pairing in each))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two sources of preferences agree on the comparisons they share."""

    num_comparisons: int
    share: float
    """Comparisons with the same verdict: a, b or tie."""
    kappa: float
    """Cohen's kappa: 1 full agreement, 0 what chance gives. NaN where each source always gives
    one and the same verdict, so that chance explains everything."""


def agreement(first: Iterable[Preference], second: Iterable[Preference]) -> Agreement:
    """Compares two sources of preferences on the comparisons both have judged.

        kappa = (p_o - p_e) / (1 - p_e)

    with p_o the share of equal verdicts and p_e the share expected if each source gave its
    verdicts at random in its own proportions (Cohen 1960, doi:10.1177/001316446002000104).
    Several judgements of one comparison count as their mean; texts shown in the other order are
    turned round first.

    Raises:
        DataError: no comparison in common, or one id with different texts.
    """
    one, other = _by_comparison(first), _by_comparison(second)
    shared = sorted(one.keys() & other.keys())
    if not shared:
        raise DataError(
            f"no comparison in common: {len(one)} on one side, {len(other)} on the other; "
            "compare preferences about the same pairs"
        )
    return verdict_agreement([_verdicts(one[name], other[name]) for name in shared])


def verdict_agreement(verdicts: Sequence[tuple[str, str]]) -> Agreement:
    """`agreement` of two verdicts on each of some comparisons, at least one."""
    total = len(verdicts)
    observed = sum(a == b for a, b in verdicts) / total
    left, right = (Counter(side) for side in zip(*verdicts, strict=True))
    expected = sum(left[verdict] * right[verdict] for verdict in left) / total**2
    kappa = (observed - expected) / (1 - expected) if expected < 1 else math.nan
    return Agreement(total, observed, kappa)


def _by_comparison(preferences: Iterable[Preference]) -> Mapping[str, list[Preference]]:
    groups: dict[str, list[Preference]] = {}
    for preference in preferences:
        comparison = preference.comparison
        groups.setdefault(comparison.id or comparison.prompt.id, []).append(preference)
    return groups


def _verdicts(first: Sequence[Preference], second: Sequence[Preference]) -> tuple[str, str]:
    like = first[0].comparison
    return _verdict(first, like), _verdict(second, like)


def _verdict(preferences: Sequence[Preference], like: Comparison) -> str:
    return verdict(fmean(turned(preference, like).p_a for preference in preferences))


def verdict(p_a: float) -> str:
    """`a`, `b` or `tie`."""
    # The mean of 0.3 and 0.7 is a tie, whatever the last bit says.
    if math.isclose(p_a, 0.5, abs_tol=1e-9):
        return "tie"
    return "a" if p_a > 0.5 else "b"


def turned(preference: Preference, like: Comparison) -> Preference:
    """The same judgement with the answers in the order of another record of its comparison.

    Raises:
        DataError: the two records have different texts.
    """
    comparison = preference.comparison
    if (comparison.a, comparison.b) == (like.a, like.b):
        return preference
    if (comparison.a, comparison.b) == (like.b, like.a):
        return preference.swap()
    raise DataError(
        f"comparison {comparison.id or comparison.prompt.id!r} has other texts on the other "
        "side: give each pair of texts an id of its own"
    )
