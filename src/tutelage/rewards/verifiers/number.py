"""The final number of an answer, as in GSM8K (Cobbe et al. 2021, arXiv:2110.14168).

    marked ("#### 18", "\\boxed{18}", "the answer is 18")   the one number behind the mark
    not marked                                             the last number of the text

A marked answer that names several different numbers has decided for none of them. Numbers are
compared exactly, as fractions: 1,234.50 = 1234.5 and 3/4 = 0.75. What stands around a number is
a unit: $18, 18 km and 18 % are 18; `thousand`, `million` and so on multiply. Only ASCII digits
make a number, and one that cannot be read for certain (1.234,5 or 5² or 1 1/2) is no
answer, nor is a calculation without its result (20 - 2).
"""

import re
from collections.abc import Iterator
from fractions import Fraction

from tutelage.records import Prompt, Score
from tutelage.rewards.verifiers.marked import marked_answer
from tutelage.rewards.verifiers.verifier import unscorable, verdict

__all__ = ["FinalNumber", "final_number", "numbers"]

_LONGEST = 64
"""Characters of a number; nobody means a longer one, and reading it would take time."""
_TOKEN = re.compile(r"\d[\d.,:/]*|\.\d[\d.,:/]*")
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_PLAIN = re.compile(rf"({_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)")
_FRACTION = re.compile(rf"({_WHOLE})/({_WHOLE})")
_MIXED = re.compile(r"[0-9] $")
_HAS_EXPONENT = re.compile(r"[eE][+-]?[0-9]")
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]{1,2})(?![0-9A-Za-z])")
_SCALE = re.compile(r"[ \t]?(hundred|thousand|million|billion|trillion)s?\b", re.IGNORECASE)
_SCALES = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_OPERAND = re.compile(r"[0-9)\]}%][ \t]?[-−+*/×÷·][ \t]?[$€£¥]?$")
"""What stands before the second number of a calculation, which is not its result."""
_POWER = re.compile(r"[ \t]?(?:\^|\*\*[ \t]?[0-9({])")
_MINUS = "-−"


class FinalNumber:
    """Right when the answer's final number is that of the reference."""

    at_once = 1

    def verify(self, prompt: Prompt, text: str) -> Score:
        """1 or 0; unscorable where the reference has no number."""
        expected = final_number(prompt.reference) if prompt.reference is not None else None
        if expected is None:
            return unscorable(prompt, "reference that is a number")
        found = final_number(text)
        return verdict(found == expected, f"found {_shown(found)}, expected {_shown(expected)}")


def final_number(text: str) -> Fraction | None:
    """The number that an answer ends in, or None where it has none that is certain."""
    marked = marked_answer(text)
    if marked is None:
        found = list(numbers(text))
        return found[-1] if found else None
    # "The answer is 3 + 4 = 7": what counts is the result.
    different = set(numbers(marked.rpartition("=")[2]))
    return different.pop() if len(different) == 1 else None


def numbers(text: str) -> Iterator[Fraction | None]:
    """Every number of a text in order; None for one that cannot be read for certain."""
    for token in _TOKEN.finditer(text):
        start = token.start()
        before = text[start - 1] if start else ""
        if before == "_" or before.isalpha():
            continue  # x2 and v1.5 are names.
        head = text[max(0, start - 16) : start]
        value = _unsigned(token[0].rstrip(".,:/"), head, text[token.end() : token.end() + 16])
        sign = _sign(head.rstrip("$€£¥"))
        yield None if value is None or sign is None else sign * value


def _unsigned(token: str, before: str, after: str) -> Fraction | None:
    neighbour = before[-1:]
    if len(token) > _LONGEST or neighbour in ("^", "√") or neighbour.isnumeric():
        return None
    if after[:1].isnumeric() or _OPERAND.search(before) or _POWER.match(after):
        return None
    if plain := _PLAIN.fullmatch(token):
        value = Fraction(plain[1].replace(",", ""))
    elif (fraction := _FRACTION.fullmatch(token)) and not _MIXED.search(before):
        above, below = (int(part.replace(",", "")) for part in fraction.groups())
        if below == 0:
            return None
        value = Fraction(above, below)
    else:
        return None
    if _HAS_EXPONENT.match(after):
        exponent = _EXPONENT.match(after)
        return value * Fraction(10) ** int(exponent[1]) if exponent else None
    scale = _SCALE.match(after)
    return value * _SCALES[scale[1].lower()] if scale else value


def _sign(head: str) -> int | None:
    """The sign at the end of what stands before a number; None where it may be a dash."""
    bare = head.rstrip(" \t")
    if bare[-1:] not in _MINUS or not bare:
        return 1
    touches, rest = bare == head, bare[:-1]
    before = rest.rstrip(" \t")[-1:]
    if before and before in _MINUS:
        return None
    if before in ("", "\n"):
        return -1 if touches else None  # "- 5" may be an item of a list
    if before.isalpha() or before == ".":
        return -1 if touches and rest[-1:] in " \t" else None  # "it is -5" against "covid-19"
    return -1


def _shown(value: Fraction | None) -> str:
    return "no number" if value is None else str(value)[:80]
