"""IFEval's constraints on words, letters and lengths (arXiv:2311.07911, table 4)."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from tutelage.rewards.verifiers.language import detect_language

__all__ = ["CHECKS", "count_sentences"]

Arguments = Mapping[str, Any]

_WORD = re.compile(r"\w+")
_TOKEN = re.compile(r"[^\s.,;:!?\"()\[\]{}<>*#]+")
_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_SENTENCE_END = re.compile(
    r"[.!?…\u3002\uff01\uff1f]+[\"'”\u2019)\]*]*(?=\s|$)|\n[ \t]*\n|[\u3002\uff01\uff1f]"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|sr|jr|st|vs|etc|e\.g|i\.e|inc|ltd|co|no|fig)|\b[A-Z])\.$",
    re.IGNORECASE,
)


def _holds(found: int, arguments: Arguments, relation: str, limit: str) -> bool:
    """`at least` the limit, or `less than` it."""
    wanted = int(arguments[limit])
    return found >= wanted if arguments[relation] == "at least" else found < wanted


def _keywords(text: str, arguments: Arguments) -> bool:
    """All of them occur, in any case, perhaps inside of other words."""
    folded = text.casefold()
    return all(word.casefold() in folded for word in arguments["keywords"])


def _frequency(text: str, arguments: Arguments) -> bool:
    found = text.casefold().count(arguments["keyword"].strip().casefold())
    return _holds(found, arguments, "relation", "frequency")


def _forbidden(text: str, arguments: Arguments) -> bool:
    """None of them occurs as a word."""
    return not any(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
        for word in arguments["forbidden_words"]
    )


def _letters(text: str, arguments: Arguments) -> bool:
    found = text.casefold().count(arguments["letter"].casefold())
    return _holds(found, arguments, "let_relation", "let_frequency")


def _language(text: str, arguments: Arguments) -> bool:
    return detect_language(text) == arguments["language"]


def _words(text: str, arguments: Arguments) -> bool:
    found = sum(1 for _ in _WORD.finditer(text))
    return _holds(found, arguments, "relation", "num_words")


def _sentences(text: str, arguments: Arguments) -> bool:
    return _holds(count_sentences(text), arguments, "relation", "num_sentences")


def count_sentences(text: str) -> int:
    """Pieces with a word in them between ends of sentences.

    Full stops, question and exclamation marks before white space end one, and so does an empty
    line; the stop of an abbreviation or an initial does not.
    """
    count, start = 0, 0
    for end in _SENTENCE_END.finditer(text):
        if _ABBREVIATION.search(text[max(start, end.end() - 12) : end.end()]):
            continue
        count += bool(_WORD.search(text, start, end.end()))
        start = end.end()
    return count + bool(_WORD.search(text, start))


def _paragraphs(text: str, arguments: Arguments) -> bool:
    """Exactly so many, with the divider *** between them."""
    pieces = [piece.strip() for piece in _DIVIDER.split(text)]
    inner = pieces[1:-1]
    found = sum(map(bool, pieces))
    return all(inner) and found == int(arguments["num_paragraphs"])


def _first_word(text: str, arguments: Arguments) -> bool:
    """Exactly so many paragraphs, between empty lines, of which one begins with the word."""
    paragraphs = [each.strip() for each in text.split("\n\n") if each.strip()]
    wanted = int(arguments["nth_paragraph"])
    if len(paragraphs) != int(arguments["num_paragraphs"]) or not 0 < wanted <= len(paragraphs):
        return False
    first = paragraphs[wanted - 1].split()[0].strip("\"'“”\u2018\u2019.,;:!?*_()").casefold()
    return bool(first == arguments["first_word"].casefold())


def _capital_words(text: str, arguments: Arguments) -> bool:
    found = sum(token.isupper() for token in _TOKEN.findall(text))
    return _holds(found, arguments, "capital_relation", "capital_frequency")


def _all_capital(text: str, arguments: Arguments) -> bool:
    return text.isupper() and detect_language(text) == "en"


def _all_small(text: str, arguments: Arguments) -> bool:
    return text.islower() and detect_language(text) == "en"


CHECKS: Mapping[str, Callable[[str, Arguments], bool]] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_words": _words,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": _all_capital,
    "change_case:english_lowercase": _all_small,
}
"""Checker by the paper's id."""
