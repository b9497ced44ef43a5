"""How different completions are from each other, as numbers between 0 and 1.

    tokens of all completions ──> distinct_ngrams, unique_share        within and across prompts
    completions of one prompt ──> self_overlap                         among themselves

Tokens are those that were drawn. Numbers over a whole round fall when it has more tokens, for
reasons of counting alone: compare rounds of like size.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

__all__ = ["distinct_ngrams", "self_overlap", "unique_share"]


def distinct_ngrams(responses: Sequence[Sequence[Hashable]], n: int) -> float:
    """distinct-n: different n-grams over all n-grams.

        |{g}| / Σ_g count(g)

    Source: Li et al. 2016 (arXiv:1510.03055).

    Args:
        responses: tokens of each completion; n-grams do not reach from one into the next.
        n: tokens in a row.

    Returns:
        0 where no completion has n tokens.
    """
    ngrams = [ngram for response in responses for ngram in _ngrams(response, n)]
    return len(set(ngrams)) / max(1, len(ngrams))


def unique_share(responses: Sequence[Sequence[Hashable]]) -> float:
    """Different completions over all completions.

    Source: by definition. 1 / n where all n are the same.

    Args:
        responses: tokens of each completion.

    Returns:
        0 where there is no completion.
    """
    return len({tuple(response) for response in responses}) / max(1, len(responses))


def self_overlap(groups: Sequence[Sequence[Sequence[Hashable]]], n: int = 2) -> float:
    """The share of a completion's n-grams that another completion of its prompt has too.

        mean over prompts, and over pairs i ≠ j of a prompt's completions, of |G_i ∩ G_j| / |G_i|

    with G_i the set of the n-grams of completion i. 1 where all completions of a prompt are the
    same, 0 where no two have an n-gram in common.

    Source: the mean over pairs of Shen et al. 2019 (arXiv:1902.07816), who take BLEU of each pair,
    as Zhu et al. 2018 (arXiv:1802.01886, Self-BLEU) take that of each text against all others. Here
    it is the precision of n-grams of one length, of sets: without smoothing, clipping or brevity
    penalty, it has a closed form in the number c(g) of completions that contain g,

        Σ_{j≠i} |G_i ∩ G_j| = Σ_{g ∈ G_i} (c(g) - 1)

    so that its cost is that of reading the tokens, and not of comparing every pair.

    Args:
        groups: for each prompt, the tokens of each of its completions.
        n: tokens in a row. A shorter completion counts as one n-gram.

    Returns:
        0 where no prompt has two completions: there is nothing to overlap with.
    """
    overlaps = []
    for group in groups:
        if len(group) < 2:
            continue
        sets = [set(_ngrams(response, n)) or {tuple(response)} for response in group]
        users = Counter(ngram for ngrams in sets for ngram in ngrams)
        shared = [sum(users[ngram] - 1 for ngram in ngrams) / len(ngrams) for ngrams in sets]
        overlaps.append(sum(shared) / (len(group) * (len(group) - 1)))
    return sum(overlaps) / max(1, len(overlaps))


def _ngrams(response: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    return list(zip(*(response[start:] for start in range(n)), strict=False))
