"""The time of day, as several server processes share it.

Leases and sessions are written by one process and read by another, perhaps after a restart: a
clock that never jumps begins anew with each process, so that the calendar has to serve.
"""

from datetime import UTC, datetime

__all__ = ["iso", "now"]


def now() -> float:
    """Seconds since 1970."""
    return datetime.now(UTC).timestamp()


def iso(seconds: float) -> str:
    """UTC time in ISO 8601, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
