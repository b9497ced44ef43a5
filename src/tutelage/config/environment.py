"""Whom the policy talks to: the section that makes completions of several turns."""

from typing import Literal

from pydantic import PositiveInt

from tutelage.config.base import Section

__all__ = ["EnvironmentConfig"]


class EnvironmentConfig(Section):
    """Conversations of several turns instead of single answers; see docs/multiturn.md."""

    name: str
    """`helpdesk`, the simulated customer of that world, or a Python class `path.py:Name`."""
    max_turns: PositiveInt = 4
    """Answers in a conversation; `sampling.max_tokens` is the limit of each."""
    max_tokens: PositiveInt = 1024
    """Tokens of a conversation, its prompt included. A turn after the first begins only where an
    answer of `sampling.max_tokens` still fits."""
    scored: Literal["all", "last"] = "all"
    """Answers that the reward scores, each with the conversation before it: all, and each is paid
    at its end, or the last one of each conversation."""
