"""A mistake that can be planted in a copy of the source."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mutant"]


@dataclass(frozen=True)
class Mutant:
    """One mistake."""

    id: str
    file: str
    """Path from the root of the repository."""
    old: str
    new: str
    mistake: str
    """What goes wrong, in words."""
    tests: tuple[str, ...]
