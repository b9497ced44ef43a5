"""Whether an answer has the form that was asked for, as reward functions.

They are called in a process with a deadline (`tutelage.rewards.FunctionProcess`): an expression
may take longer on a text made for it than anyone can wait.
"""

import json
import re
from typing import Any

from tutelage.records import Completion, Prompt

__all__ = ["is_json", "matches"]


def matches(prompt: Prompt, completion: Completion, *, pattern: str) -> float:
    """1 where the expression matches the whole answer, from its first character to its last."""
    return float(re.fullmatch(pattern, completion.text) is not None)


def is_json(prompt: Prompt, completion: Completion) -> float:
    """1 where the whole answer is one JSON value, as the standard has it: NaN is none."""
    try:
        json.loads(completion.text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
