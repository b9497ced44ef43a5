"""When two comparisons are the same: equal prompts and answers, whichever was shown first.

Ids do not decide it: two files may name the same pair differently. Texts count as the same where
only white space or their Unicode form differs (`tutelage.data.text.normalize`).
"""

import hashlib
import json

from tutelage.data.text import normalize
from tutelage.records import Comparison, Preference

__all__ = ["comparison_key", "p_first"]


def comparison_key(comparison: Comparison) -> str:
    """A hash of the prompt and of both answers, the same for either order of showing."""
    said = [[message.role, normalize(message.content)] for message in comparison.prompt.messages]
    answers = sorted((normalize(comparison.a), normalize(comparison.b)))
    text = json.dumps([said, answers], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def p_first(preference: Preference) -> float:
    """Probability that the answer which is first in the order of characters is the better one.

    It is what two judgements of the same comparison have to be compared by.
    """
    comparison = preference.comparison
    a_is_first = normalize(comparison.a) <= normalize(comparison.b)
    return preference.p_a if a_is_first else 1.0 - preference.p_a
