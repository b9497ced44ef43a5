"""One of several choices by its letter, as in CommonsenseQA (arXiv:1811.00937).

    1. marked ("the answer is (B)", "#### B", "\\boxed{B}")  the letter right behind the mark
    2. the answer begins with it: "B", "(B)", "B. bank", "b)"
    3. the answer is the text of one choice: "bank"
    4. the only letter in brackets: "it must be (B), since ..."

The first rule that applies decides. A marked answer that goes on to name another choice, and an
answer that has several in brackets, have decided for none.
"""

import re
from collections.abc import Mapping

from tutelage.records import Prompt, Score
from tutelage.rewards.verifiers.exact import same_text
from tutelage.rewards.verifiers.marked import marked_answer
from tutelage.rewards.verifiers.verifier import unscorable, verdict

__all__ = ["Choice", "chosen_letter"]

_REFERENCE = re.compile(r"\(?([A-Za-z])\)?")
_OFFERED = re.compile(r"^[ \t]*\(([A-Z])\)[ \t]*(.*)$", re.MULTILINE)
_DECORATION = "*\"'`[{ \t\n$"
_FIRST = re.compile(r"\(([A-Za-z])\)|([A-Za-z])\)|([A-Za-z])(?=[.:,\]}*\"'`\s]|$)")
_BRACKETED = re.compile(r"\(([A-Z])\)")
_CAPITAL = re.compile(r"(?<![\w'])([A-Z])(?![\w'])")

_LISTED = re.compile(r"(?:\bor|\band|[,/])[ \t]*([AI])(?![\w'])(?![ \t]+[a-z])")
"""`A` and `I` are words too, unless they end a list of letters."""


class Choice:
    """Right when the answer chooses the reference's letter."""

    at_once = 1

    def verify(self, prompt: Prompt, text: str) -> Score:
        """1 or 0; unscorable where the reference is no letter."""
        expected = _REFERENCE.fullmatch((prompt.reference or "").strip())
        if expected is None:
            return unscorable(prompt, "reference that is the letter of a choice")
        found = chosen_letter(text, _choices(prompt))
        return verdict(found == expected[1].upper(), f"found {found}, expected {expected[1]}")


def _choices(prompt: Prompt) -> Mapping[str, str]:
    """Letter -> text, of the row or as the prompt lists them."""
    told = prompt.check.get("choices")
    if isinstance(told, Mapping):
        return {str(letter).upper(): str(text) for letter, text in told.items()}
    return dict(_OFFERED.findall(prompt.text))


def chosen_letter(text: str, choices: Mapping[str, str]) -> str | None:
    """The letter that an answer decides for; any letter may be one where no choices are known."""
    marked = marked_answer(text)
    if marked is not None:
        return _marked(marked, choices)
    whole = text.strip()
    letter = _first_letter(whole, choices)
    if letter is not None:
        rest = _named(whole, choices) - {letter}
        return None if rest else letter
    by_text = [key for key, value in choices.items() if same_text(whole, value)]
    if by_text:
        return by_text[0] if len(by_text) == 1 else None
    bracketed = {key for key in _BRACKETED.findall(whole) if not choices or key in choices}
    return bracketed.pop() if len(bracketed) == 1 else None


def _marked(marked: str, choices: Mapping[str, str]) -> str | None:
    letter = _first_letter(marked, choices)
    if letter is None:
        by_text = [key for key, value in choices.items() if same_text(marked, value)]
        return by_text[0] if len(by_text) == 1 else None
    return None if _named(marked, choices) - {letter} else letter


def _first_letter(text: str, choices: Mapping[str, str]) -> str | None:
    """The letter that a text begins with; a small one counts alone or with a bracket behind it."""
    bare = text.lstrip(_DECORATION)
    first = _FIRST.match(bare)
    if first is None:
        return None
    letter = first[1] or first[2] or first[3]
    alone = not bare[first.end() :].strip(_DECORATION + ".]}:")
    bracketed = first[3] is None
    if letter.islower() and not (alone or bracketed):
        return None  # "a bank"
    if letter in "AI" and not (alone or bracketed) and bare[first.end() :][:1].isspace():
        value = bare[first.end() :].strip(_DECORATION + ".")
        if not same_text(value, choices.get(letter, "")):
            return None  # "A bank is where ...", "I think ..."
    return letter.upper() if not choices or letter.upper() in choices else None


def _named(text: str, choices: Mapping[str, str]) -> set[str]:
    """Every choice that a text names by a capital letter on its own, `A` and `I` in brackets."""
    found = set(_BRACKETED.findall(text))
    found |= {letter for letter in _CAPITAL.findall(text) if letter not in "AI"}
    found |= set(_LISTED.findall(text))
    return {letter for letter in found if not choices or letter in choices}
