"""The language of a text, by py3langid (Lui & Baldwin 2012): offline and deterministic."""

from tutelage.errors import MissingExtraError

__all__ = ["detect_language"]

_LONGEST = 5_000
"""Characters that are looked at; more say nothing new."""


def detect_language(text: str) -> str:
    """Its ISO 639-1 code.

    Raises:
        MissingExtraError: py3langid is not installed.
    """
    try:
        from py3langid import classify
    except ImportError as error:
        raise MissingExtraError("py3langid", "verifiers") from error
    # Capital letters are rare in what the detector was trained on.
    code, _ = classify(text[:_LONGEST].lower())
    return str(code)
