"""Where in an answer its final answer stands.

    ... #### 18              GSM8K's own mark: the rest of the line
    ... \\boxed{18} ...       what is inside the braces
    ... the answer is 18.    the rest of the sentence

The last mark counts. Marks are looked for in this order, since a worked solution may well say
"the answer is" before it comes to its end.
"""

import re

__all__ = ["marked_answer"]

_BOXES = ("\\boxed{", "\\fbox{")
_SAID = re.compile(r"\banswer\b[ \t]{0,3}(?:is\b|:|=)[ \t]{0,3}:?", re.IGNORECASE)
_SENTENCE = re.compile(r"(?:(?![.!?](?:\s|$))[^\n])*")


def marked_answer(text: str) -> str | None:
    """What stands behind the last mark; None where there is no mark."""
    if "####" in text:
        return text.rpartition("####")[2].partition("\n")[0].strip()
    boxed = _boxed(text)
    if boxed is not None:
        return boxed
    said = next(reversed(list(_SAID.finditer(text))), None)
    if said is None:
        return None
    sentence = _SENTENCE.match(text, said.end())
    assert sentence is not None, "it matches nothing at all, too"
    return sentence[0].strip()


def _boxed(text: str) -> str | None:
    """The content of the last box whose braces close."""
    box = max(_BOXES, key=text.rfind)
    start = text.rfind(box)
    if start < 0:
        return None
    start += len(box)
    depth = 1
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start:i].strip()
    return None
