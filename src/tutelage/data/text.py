"""Plain text: when two texts count as the same, and what in a text is suspicious."""

import re
import unicodedata
from collections.abc import Iterator

__all__ = ["control_characters", "normalize", "suspicions"]

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_SPECIAL_TOKEN = re.compile(
    r"<\|[\w ]{1,40}\|>|</?s>|<(?:pad|bos|eos|unk)>|<(?:start|end)_of_turn>|\[/?INST\]"
)
_WRONG_DECODING = re.compile(r"[\x80-\x9f]")
_RARE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd<\[]")
"""One character of each oddity: most texts have none and are passed over at once."""


def normalize(text: str) -> str:
    """The text in Unicode form NFC, each run of white space as one blank, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def control_characters(text: str) -> list[str]:
    """The control characters in a text that are neither white space nor C1, as U+XXXX."""
    if not _RARE.search(text):
        return []
    return sorted({f"U+{ord(character):04X}" for character in _CONTROL.findall(text)})


def suspicions(text: str) -> Iterator[str]:
    """What a person should look at: strings of special tokens, traces of a wrong encoding."""
    if not _RARE.search(text):
        return
    tokens = sorted(set(_SPECIAL_TOKEN.findall(text)))
    if tokens:
        yield f"holds {', '.join(tokens)}, which is kept as plain text"
    if "\ufffd" in text:
        yield "holds U+FFFD, the mark of a decoding error"
    if _WRONG_DECODING.search(text):
        yield "holds C1 control characters, probably Windows-1252 read as Latin-1"
