"""IFEval's constraints on layout, beginnings and ends (arXiv:2311.07911, table 4)."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tutelage.rewards.verifiers.json_schema import json_value

__all__ = ["CHECKS"]

Arguments = Mapping[str, Any]

_PLACEHOLDER = re.compile(r"\[[^\[\]\n]*\]")
_BULLET = re.compile(r"[ \t]*(?:\*(?!\*)|-)")
_HIGHLIGHT = re.compile(r"\*\*([^\n*]+)\*\*|\*([^\n*]+)\*")
_CHOICES = ("my answer is yes.", "my answer is no.", "my answer is maybe.")
_BETWEEN_RESPONSES = "******"


def _placeholders(text: str, arguments: Arguments) -> bool:
    """At least so many, such as [address]."""
    return len(_PLACEHOLDER.findall(text)) >= int(arguments["num_placeholders"])


def _postscript(text: str, arguments: Arguments) -> bool:
    """A line has the marker, with or without spaces between its letters."""
    letters = re.sub(r"[^a-z]", "", arguments["postscript_marker"].casefold())
    spaced = r"\.[ \t]?".join(letters)
    return re.search(rf"(?<!\w){spaced}(?:\.|:|\b)", text.casefold()) is not None


def _bullets(text: str, arguments: Arguments) -> bool:
    """Exactly so many lines begin with * or -."""
    found = sum(_BULLET.match(line) is not None for line in text.splitlines())
    return found == int(arguments["num_bullets"])


def _one_of_three(text: str, arguments: Arguments) -> bool:
    folded = text.casefold()
    return any(choice in folded for choice in _CHOICES)


def _highlights(text: str, arguments: Arguments) -> bool:
    """At least so many pieces between asterisks."""
    found = sum(bool((a or b).strip()) for a, b in _HIGHLIGHT.findall(text))
    return found >= int(arguments["num_highlights"])


def _sections(text: str, arguments: Arguments) -> bool:
    """At least so many headings such as `Section 3`."""
    heading = rf"{re.escape(arguments['section_spliter'])}[ \t]?[0-9]+"
    return len(re.findall(heading, text)) >= int(arguments["num_sections"])


def _json(text: str, arguments: Arguments) -> bool:
    try:
        json_value(text)
    except (ValueError, json.JSONDecodeError):
        return False
    return True


def _title(text: str, arguments: Arguments) -> bool:
    """A line has <<something>>."""
    for line in text.splitlines():
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end and line[start:end].strip("<> \t"):
            return True
    return False


def _repeats(text: str, arguments: Arguments) -> bool:
    wanted = arguments["prompt_to_repeat"].strip().casefold()
    return text.strip().casefold().startswith(wanted)


def _two_responses(text: str, arguments: Arguments) -> bool:
    """Two different ones with six asterisks between them."""
    pieces = [piece.strip() for piece in text.split(_BETWEEN_RESPONSES)]
    if len(pieces) > 1 and not pieces[-1]:
        pieces.pop()
    if len(pieces) > 1 and not pieces[0]:
        pieces.pop(0)
    return len(pieces) == 2 and all(pieces) and pieces[0] != pieces[1]


def _ends(text: str, arguments: Arguments) -> bool:
    wanted = arguments["end_phrase"].strip().casefold()
    return text.strip().strip('"').casefold().endswith(wanted)


def _quoted(text: str, arguments: Arguments) -> bool:
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def _no_comma(text: str, arguments: Arguments) -> bool:
    return "," not in text


CHECKS: Mapping[str, Callable[[str, Arguments], bool]] = {
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _one_of_three,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:repeat_prompt": _repeats,
    "combination:two_responses": _two_responses,
    "startend:end_checker": _ends,
    "startend:quotation": _quoted,
    "punctuation:no_comma": _no_comma,
}
"""Checker by the paper's id."""
