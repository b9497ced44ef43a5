"""How rows are shared out among cores: read by the stages, and by the plan of what they need."""

__all__ = ["MOST_SHARES", "SMALLEST_SHARE", "SMALL_MODEL"]

SMALL_MODEL = 20_000_000
"""Weights of a model up to which its rows are shared out among cores."""
SMALLEST_SHARE = 64
"""Completions below which a share has more overhead than work."""
MOST_SHARES = 8
"""Fixed, so that a machine with more cores draws the same completions."""
