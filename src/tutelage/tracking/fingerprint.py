"""SHA-256 of values and files: how a finished stage is recognised and a damaged one found."""

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["file_fingerprint", "fingerprint"]

_CHUNK = 1 << 20


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`: sorted keys, no spaces, UTF-8.

    Raises:
        TypeError: the value is not made of JSON types.
        ValueError: a number is not finite.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def file_fingerprint(path: Path) -> str:
    """SHA-256 of the bytes of the file at `path`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
