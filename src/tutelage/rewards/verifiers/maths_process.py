"""The process that compares mathematics: a line of JSON in, a line of JSON out.

Run as a file, so that it imports nothing but the library.
"""

import json
import resource
import sys
from typing import Any

__all__ = ["compare", "serve"]

_MEMORY = 2 << 30


def compare(reference: str, text: str) -> dict[str, Any]:
    """Whether the text's last formula equals the reference."""
    from math_verify import parse, verify

    # The caller ends this process when it takes too long; the library's alarms are switched off.
    expected = parse(reference, parsing_timeout=None) or parse(
        f"${reference}$", parsing_timeout=None
    )
    if not expected:
        return {"readable": False, "equal": False}
    found = parse(text, parsing_timeout=None)
    return {"readable": True, "equal": verify(expected, found, timeout_seconds=None)}


def serve() -> None:
    """Answers until standard input ends."""
    import logging

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    logging.disable(logging.CRITICAL)
    compare("1", "1")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        row = json.loads(line)
        try:
            answer = compare(row["reference"], row["text"])
        except (Exception, RecursionError, MemoryError) as error:
            # Whatever a formula breaks in the library, no right answer breaks it.
            answer = {"readable": True, "equal": False, "broken": repr(error)[:200]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
