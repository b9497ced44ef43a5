"""Which comparisons are worth a person's time.

    candidates ─┬─ random        an unbiased sample of all
                ├─ category      what people alone should decide
                ├─ doubt         where the judge is unsure          1 - |2 p - 1|
                ├─ conflict      where judge and reward models contradict each other
                ├─ disagreement  where reward models differ         Var_m (r_a - r_b)
                └─ length        alike and unlike in length, equally many
                       └── a share of the places each ──> chosen, with the reason

A label is worth most where those who could guess it differ (query by committee, Seung et al. 1992;
for reward models Christiano et al. 2017, arXiv:1706.03741, section 2.2.4). The largest disagreement
alone picks what is noisy and what is all alike, so it shares the places with a random sample, which
is also the one part from which the judge's accuracy can be estimated without bias, and a prompt can
be kept from taking many of them.

Scores come in as numbers: nothing here reads a text or knows a model.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean, pvariance
from typing import Literal

from tutelage.errors import DataError
from tutelage.records import Comparison

__all__ = [
    "STRATEGIES",
    "Candidate",
    "Chosen",
    "Strategy",
    "choose",
    "conflict",
    "disagreement",
    "doubt",
    "length_stratum",
    "quotas",
]

Strategy = Literal["random", "category", "doubt", "conflict", "disagreement", "length"]
STRATEGIES: tuple[Strategy, ...] = (
    "random",
    "category",
    "doubt",
    "conflict",
    "disagreement",
    "length",
)
"""In the order in which they choose. The random sample comes first: taken from what others have
left it would not be one."""

_STRATA = (0.1, 0.25, 0.5)
"""Differences in length, as a share of the longer text, between one stratum and the next."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A comparison that may be asked about, and what is known of it."""

    comparison: Comparison
    lengths: tuple[int, int] = (0, 0)
    """Words of `a` and of `b`."""
    margins: tuple[float, ...] = ()
    """r_a - r_b by each reward model, in comparable units."""
    p_a: float | None = None
    """Probability that `a` is better by the judge; None where it has not said."""
    orders: tuple[float, float] | None = None
    """The same with `a` shown first, and with `a` shown second, where it was asked both ways."""

    @property
    def category(self) -> str:
        """That of the prompt."""
        return self.comparison.prompt.category

    @property
    def confidence(self) -> float:
        """How sure the judge is, in [0, 1]: 1 - `doubt`; 0 where it has not said."""
        return 0.0 if self.p_a is None else 1.0 - doubt(self.p_a, self.orders)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A candidate, and why it was chosen."""

    candidate: Candidate
    reason: Strategy


def disagreement(margins: Sequence[float]) -> float:
    """How far reward models differ about a pair: the variance of r_a - r_b over them.

    0 for a model alone, which cannot disagree. The same whichever answer comes first.
    """
    return pvariance(margins) if len(margins) > 1 else 0.0


def doubt(p_a: float, orders: tuple[float, float] | None = None) -> float:
    """How unsure a judge is, in [0, 1]: 1 - |2 p - 1|.

    1 also where the two orders contradict each other, that is where one of the places wins twice.

    Args:
        p_a: the judge's probability that `a` is better.
        orders: the same with `a` shown first and with `a` shown second.
    """
    if orders is not None and (orders[0] - 0.5) * (orders[1] - 0.5) < 0:
        return 1.0
    return 1.0 - abs(2.0 * p_a - 1.0)


def conflict(p_a: float, margins: Sequence[float]) -> float:
    """How far judge and reward models contradict each other, in [-1, 1].

        -(2 p - 1) (2 sigma(mean margin) - 1)

    1 where both are sure of opposite answers, -1 where both are sure of the same one. Such pairs
    are where a judge is wrong without any doubt, once the reward models have seen people's labels.
    """
    preferred = math.tanh(fmean(margins) / 2)  # 2 sigma(x) - 1
    return -(2.0 * p_a - 1.0) * preferred


def length_stratum(lengths: tuple[int, int]) -> int:
    """Which stratum a pair belongs to, by the difference as a share of the longer text.

    0 up to a tenth, 1 up to a quarter, 2 up to a half, 3 beyond.
    """
    longer = max(lengths)
    share = abs(lengths[0] - lengths[1]) / longer if longer else 0.0
    return sum(share > edge for edge in _STRATA)


def quotas(shares: Mapping[Strategy, float], count: int) -> dict[Strategy, int]:
    """Shares of `count` places in whole places, which add up to it.

    Each gets its share rounded down; the places that are left go to the largest remainders
    (Hare-Niemeyer), and among equal ones to the strategy that chooses first.

    Args:
        shares: how much of the places each strategy has, relative to the others.
        count: the places.

    Raises:
        DataError: no share is above 0.
    """
    total = math.fsum(shares.values())
    if not total > 0:
        raise DataError(f"no strategy has a share above 0: give one of {', '.join(STRATEGIES)}")
    exact = {name: count * shares.get(name, 0.0) / total for name in STRATEGIES}
    # A share of a third must not lose a place to the last bit of its product.
    whole = {name: math.floor(value + 1e-9) for name, value in exact.items()}
    order = sorted(STRATEGIES, key=lambda name: whole[name] - exact[name])
    for name in order[: count - sum(whole.values())]:
        whole[name] += 1
    return {name: places for name, places in whole.items() if places}


def choose(
    candidates: Iterable[Candidate],
    count: int,
    shares: Mapping[Strategy, float],
    *,
    categories: Collection[str] = (),
    per_prompt: int | None = None,
    seed: int = 0,
) -> list[Chosen]:
    """Chooses up to `count` comparisons, each once, by several strategies with a share each.

    What a strategy cannot fill goes to the ones after it in `STRATEGIES`; fewer are chosen where
    the last of them finds no more. The order of the candidates makes no difference, and equals are
    drawn by `seed`.

    Args:
        candidates: what may be asked about, with what the strategies need: `doubt` chooses among
            those that the judge has answered, `disagreement` among those that two reward models
            have read, `conflict` among those with both.
        count: at most so many.
        shares: of the places, by strategy; only their proportions count.
        categories: those that the strategy `category` chooses from, at random.
        per_prompt: at most so many comparisons of one prompt.
        seed: of all draws.

    Returns:
        The chosen ones in the order of `STRATEGIES`, the most urgent of each first.

    Raises:
        DataError: no share is above 0.
    """
    source = Random(f"choice {seed}")
    remaining = sorted(candidates, key=lambda candidate: candidate.comparison.id)
    source.shuffle(remaining)
    taken: Counter[str] = Counter()
    chosen: list[Chosen] = []
    unfilled = 0
    for name, quota in quotas(shares, count).items():
        places = quota + unfilled
        picked: set[int] = set()
        for candidate in _ordered(name, remaining, categories):
            prompt = candidate.comparison.prompt.id
            if len(picked) == places:
                break
            if per_prompt is None or taken[prompt] < per_prompt:
                taken[prompt] += 1
                picked.add(id(candidate))
                chosen.append(Chosen(candidate, name))
        remaining = [candidate for candidate in remaining if id(candidate) not in picked]
        unfilled = places - len(picked)
    return chosen


def _ordered(
    name: Strategy, shuffled: Sequence[Candidate], categories: Collection[str]
) -> list[Candidate]:
    """The candidates that a strategy may choose, the best first; equals stay as shuffled."""
    if name == "random":
        return list(shuffled)
    if name == "category":
        return [candidate for candidate in shuffled if candidate.category in categories]
    if name == "length":
        return _stratified(shuffled)
    able, score = _SCORES[name]
    return sorted(filter(able, shuffled), key=score, reverse=True)


def _stratified(shuffled: Sequence[Candidate]) -> list[Candidate]:
    """One of each stratum in turn, as long as there are any."""
    turns: Counter[int] = Counter()
    placed = []
    for position, candidate in enumerate(shuffled):
        stratum = length_stratum(candidate.lengths)
        placed.append((turns[stratum], position))
        turns[stratum] += 1
    return [shuffled[position] for _, position in sorted(placed)]


def _judged(candidate: Candidate) -> bool:
    return candidate.p_a is not None


def _read_by_two(candidate: Candidate) -> bool:
    return len(candidate.margins) > 1


def _judged_and_read(candidate: Candidate) -> bool:
    return candidate.p_a is not None and bool(candidate.margins)


def _doubt(candidate: Candidate) -> float:
    return 0.0 if candidate.p_a is None else doubt(candidate.p_a, candidate.orders)


def _conflict(candidate: Candidate) -> float:
    return 0.0 if candidate.p_a is None else conflict(candidate.p_a, candidate.margins)


def _disagreement(candidate: Candidate) -> float:
    return disagreement(candidate.margins)


_SCORES: Mapping[Strategy, tuple[Callable[[Candidate], bool], Callable[[Candidate], float]]] = {
    "doubt": (_judged, _doubt),
    "conflict": (_judged_and_read, _conflict),
    "disagreement": (_read_by_two, _disagreement),
}
"""Whom a strategy may choose from, and by what."""
