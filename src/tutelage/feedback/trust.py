"""How sure a judge must be to be believed without asking people.

    comparisons that people and the judge have judged ──> confidence c and bound, such that
        P(the judge disagrees with people | confidence >= c) <= disagreement
        with probability 1 - failure over the choice of these comparisons

Fixed-sequence testing (Jung et al. 2024, arXiv:2407.18370, section 2): thresholds are walked from
strict to lax, each has the exact binomial upper bound of the share of disagreements among the
verdicts above it (Clopper and Pearson 1934), and the walk ends before the first whose bound is more
than is allowed. What is said of such comparisons holds for others of the same distribution: they
must be a random sample of what the judge is to be trusted with, and independent. Several pairs of
one prompt are not quite, and make the bound a little too low.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.errors import DataError
from tutelage.feedback.choice import doubt

__all__ = ["Trust", "compared", "fewest_labels", "trusted_confidence", "upper_bound"]

_TIE = 1e-9
"""What is as near to 1/2 is a tie, whatever the last bit says."""

_THRESHOLDS = tuple(step / 100 for step in range(100, -1, -1))
"""Set before any verdict is seen, as the guarantee asks."""
_START = 5
"""Times the fewest labels, with which the walk begins: a judge that errs half as often as it may
passes there. Where one error in ten labels ended it, few walks would go anywhere."""


@dataclass(frozen=True, slots=True)
class Trust:
    """From which confidence on a judge is believed, and what that rests on."""

    confidence: float
    """Verdicts at least as sure are believed."""
    bound: float
    """Of the share of disagreements with people among them."""
    coverage: float
    """Share of all verdicts that are as sure."""
    labels: int
    """People's labels among them."""


def compared(
    p_a: float, orders: tuple[float, float] | None, people: float
) -> tuple[float, bool] | None:
    """A judge's confidence in a verdict, and whether people agree; None where they call it a tie.

    Args:
        p_a: the judge's probability that `a` is better.
        orders: the same with `a` shown first and with `a` shown second.
        people: theirs.
    """
    if abs(people - 0.5) < _TIE:
        return None
    return 1.0 - doubt(p_a, orders), (p_a - 0.5) * (people - 0.5) > 0


def trusted_confidence(
    verdicts: Sequence[tuple[float, bool]], *, disagreement: float, failure: float = 0.1
) -> Trust | None:
    """The least confidence from which on a judge agrees with people often enough.

    Args:
        verdicts: the judge's confidence in [0, 1], such as 1 - `doubt`, and whether people agree.
        disagreement: share of its believed verdicts that may differ from people's.
        failure: how probable it may be that more of them do.

    Returns:
        None where no confidence is enough.

    Raises:
        DataError: too few verdicts to show it, or a share that is not between 0 and 1.
    """
    needed = fewest_labels(disagreement, failure)
    start = min(_START * needed, len(verdicts))
    if len(verdicts) < needed:
        raise DataError(
            f"{len(verdicts)} comparisons have been judged by people and by the judge: at least "
            f"{needed} are needed to show that at most {disagreement:.0%} of its verdicts differ"
        )
    trusted = None
    for threshold in _THRESHOLDS:
        kept = [agrees for confidence, agrees in verdicts if confidence >= threshold]
        if len(kept) < start:
            continue  # a matter of confidences alone: no verdict has been looked at
        bound = upper_bound(kept.count(False), len(kept), failure)
        if bound > disagreement:
            break
        trusted = Trust(threshold, bound, len(kept) / len(verdicts), len(kept))
    return trusted


def fewest_labels(disagreement: float, failure: float) -> int:
    """Labels without which not even a judge that never errs could be shown to be good enough.

    Raises:
        DataError: a share is not between 0 and 1.
    """
    for name, share in (("disagreement", disagreement), ("failure", failure)):
        if not 0.0 < share < 1.0:
            raise DataError(f"{name} is {share!r}, expected a share between 0 and 1")
    return math.ceil(math.log(failure) / math.log1p(-disagreement))


def upper_bound(errors: int, count: int, failure: float) -> float:
    """sup {R : P(Bin(count, R) <= errors) >= failure}.

    Args:
        errors: found.
        count: looked at.
        failure: how probable it may be that the true rate is higher.
    """
    if errors >= count:
        return 1.0
    low, high = errors / count, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        if _at_most(errors, count, middle) >= failure:
            low = middle
        else:
            high = middle
    return low


def _at_most(errors: int, count: int, rate: float) -> float:
    """P(Bin(count, rate) <= errors), each term from the one before it."""
    log_odds = math.log(rate) - math.log1p(-rate) if rate else -math.inf
    term = count * math.log1p(-rate)
    terms = [term]
    for i in range(errors):
        term += math.log(count - i) - math.log(i + 1) + log_odds
        terms.append(term)
    largest = max(terms)
    return math.exp(largest) * math.fsum(math.exp(each - largest) for each in terms)
