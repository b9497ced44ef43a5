"""How the report sets text: messages, long answers, numbers."""

import re
from collections.abc import Mapping, Sequence

__all__ = ["messages", "shortened", "typeset"]

_MOST_TEXT = 1500


def messages(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Role and text of each message of a conversation."""
    return [{"role": row["role"], "text": shortened(row["content"])} for row in rows]


def shortened(text: str) -> str:
    """The text, or its beginning with a word on how much is missing."""
    if len(text) <= _MOST_TEXT:
        return text
    return f"{text[:_MOST_TEXT]} … ({len(text) - _MOST_TEXT:,} more characters)"


def typeset(text: str) -> str:
    """Numbers with a true minus sign; intervals, and `7 %`, do not break over lines."""
    whole = re.sub(r"\[[^\]]*\]|\d %", lambda found: found[0].replace(" ", "\u00a0"), text)
    return re.sub(r"-(?=\d)", "\u2212", whole)
