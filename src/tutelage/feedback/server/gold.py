"""Gold items: questions whose answer is known, mixed in to see how carefully people work.

They look like all others and come at moments that nobody can foresee. Their labels are not
training data.
"""

import hashlib
import math
from collections.abc import Iterable

__all__ = ["gold_accuracy", "is_due"]


def is_due(annotator: str, done: int, every: int, secret: str = "") -> bool:
    """Whether the next task of an annotator who has done so many is to be a gold one.

    One in `every` is, on average, decided by a hash, so that two server processes agree.
    """
    digest = hashlib.sha256(f"{secret}/{annotator}/{done}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % every == 0


def gold_accuracy(labels: Iterable[tuple[float, float]]) -> float:
    """Share of labels on the right side; a tie where there is a better answer counts half.

    Args:
        labels: (p_a given, p_a known) of each gold item. One whose known answer is a tie is
            right where the label is one, too.

    Returns:
        NaN without labels.
    """
    points = [_points(given, known) for given, known in labels]
    return sum(points) / len(points) if points else math.nan


def _points(given: float, known: float) -> float:
    said, right = _side(given), _side(known)
    if said == right:
        return 1.0
    return 0.5 if said == 0 and right != 0 else 0.0


def _side(p_a: float) -> int:
    return (p_a > 0.5) - (p_a < 0.5)
