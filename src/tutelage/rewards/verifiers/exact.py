"""The reference itself, word for word, as BIG-Bench Hard is scored (arXiv:2210.09261).

    marked ("the answer is valid.", "#### valid", "\\boxed{valid}")   what stands behind the mark
    not marked                                                       the whole answer

Case, white space, a full stop at the end, and quotes, asterisks or brackets around all of it do
not count; an answer with anything else beside the reference is wrong.
"""

import unicodedata

from tutelage.records import Prompt, Score
from tutelage.rewards.verifiers.marked import marked_answer
from tutelage.rewards.verifiers.verifier import unscorable, verdict

__all__ = ["Exact", "same_text"]

_QUOTES = "\u201c\u201d\u2018\u2019"
_AROUND = " \"'*`" + _QUOTES


class Exact:
    """Right when the answer is the reference."""

    at_once = 1

    def verify(self, prompt: Prompt, text: str) -> Score:
        """1 or 0; unscorable where there is no reference."""
        if not prompt.reference:
            return unscorable(prompt, "reference")
        marked = marked_answer(text)
        return verdict(same_text(text if marked is None else marked, prompt.reference))


def same_text(found: str, expected: str) -> bool:
    """Whether two texts differ in nothing that counts."""
    return _bare(found) == _bare(expected)


def _bare(text: str) -> str:
    text = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    text = text.strip(_AROUND).removesuffix(".")
    text = text.strip(_AROUND)
    if len(text) > 2 and text[0] == "(" and text.find(")") == len(text) - 1:
        text = text[1:-1]
    return text
