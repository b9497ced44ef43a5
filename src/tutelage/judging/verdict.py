"""What a reply says, and whether it says it: never a default.

    "A", "B.", "**A**", "Answer: B"      a label and nothing beside it
    prose, both, neither, a refusal      unreadable: None
    label's token with probabilities     distribution over the labels, renormalised

Source: Lee et al. 2023 (arXiv:2309.00267), section 2.1: softmax over the labels' tokens, kept as
a soft label. Departure: a reply that is no label is unreadable, and so is one where the labels
have less than `min_mass` of the probability between them.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from tutelage.judging.reply import ModelReply, Token

__all__ = ["distribution", "expectation", "read_label", "shares"]

_AROUND = " \t\r\n*_`\"'\u201c\u201d\u2018\u2019()[]{}.:#\u2581\u0120"
"""What may stand around a label, and how some servers write a space before a token."""
_NAMES = (
    r"(?:(?:final\s+)?(?:answer|verdict|rating|score|grade|option|choice)\s*(?:is)?\s*[:=]?\s*)?"
)


def read_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that the text consists of; None where it says more, less or something else."""
    longest_first = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
    around = f"[{re.escape(_AROUND)}]*"
    found = re.fullmatch(f"{around}{_NAMES}{around}({longest_first}){around}", text, re.IGNORECASE)
    if found is None:
        return None
    return next(label for label in labels if label.upper() == found[1].upper())


def distribution(
    reply: ModelReply, labels: Sequence[str], min_mass: float
) -> dict[str, float] | None:
    """P(label) for each label, from the probabilities of the tokens; None if it is unreadable.

    Where a tokenizer spells 10 as 1 and 0, the mass of 1 is shared out by what follows it; where
    the reply began otherwise, that is not known and it counts for neither.

    Args:
        reply: with tokens.
        labels: what may be replied.
        min_mass: of the labels together, before they are normalised.
    """
    assert reply.tokens is not None, "a reply with probabilities"
    label = read_label(reply.text, labels)
    # The last one: in "Answer: A" a tokenizer may make an A of the beginning, too.
    backwards = range(len(reply.tokens) - 1, -1, -1)
    place = next((i for i in backwards if _begins(_bare(reply.tokens[i].text), label)), None)
    if label is None or place is None:
        return None
    masses = dict.fromkeys(labels, 0.0)
    for text, probability in reply.tokens[place].likeliest.items():
        if (bare := _bare(text)) in masses:
            masses[bare] += probability
    if "10" in masses and masses["10"] == 0.0:
        following = reply.tokens[place + 1 :] if _bare(reply.tokens[place].text) == "1" else None
        masses |= _spelled(masses["1"], following)
    total = sum(masses.values())
    if total < min_mass or total == 0.0:
        return None
    return {label: mass / total for label, mass in masses.items()}


def _spelled(one: float, following: Sequence[Token] | None) -> dict[str, float]:
    """What of a token 1's probability is 1, and what is 10."""
    if following is None:
        return {"1": 0.0, "10": 0.0}
    if not following:
        return {"1": one, "10": 0.0}
    zero = sum(p for text, p in following[0].likeliest.items() if _bare(text) == "0")
    return {"1": one * (1.0 - zero), "10": one * zero}


def _begins(bare: str, label: str | None) -> bool:
    return label is not None and bare != "" and label.startswith(bare)


def _bare(token: str) -> str:
    return token.strip(_AROUND).upper()


def shares(replies: Sequence[ModelReply], labels: Sequence[str]) -> dict[str, float] | None:
    """How often each label was replied; None where more than half of the replies are unreadable."""
    read = Counter(
        label for reply in replies if (label := read_label(reply.text, labels)) is not None
    )
    if 2 * read.total() < len(replies) or not read:
        return None
    return {label: read[label] / read.total() for label in labels}


def expectation(grades: Mapping[str, float]) -> float:
    """sum_i i P(i), the rating of d-RLAIF (Lee et al. 2023, section 2.2.2)."""
    return sum(int(grade) * probability for grade, probability in grades.items())
