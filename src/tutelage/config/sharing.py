"""How rows are shared out among cores and passes: read by the stages, and by the plan of what they
need."""

__all__ = ["MOST_SHARES", "READ_AT_ONCE", "SMALLEST_SHARE", "SMALL_MODEL"]

SMALL_MODEL = 20_000_000
"""Weights of a model up to which its rows are shared out among cores."""
SMALLEST_SHARE = 64
"""Completions below which a share has more overhead than work."""
MOST_SHARES = 8
"""Fixed, so that a machine with more cores draws the same completions."""
READ_AT_ONCE = {"cpu": 1 << 10, "cuda": 1 << 14}
"""Tokens of prompts in one pass of the decoder: enough for its products to be fast; fewer rows have
less padding between them."""
