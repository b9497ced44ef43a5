"""Keeps the gold score out of the processes that train and label.

The helpdesk world knows how good an answer truly is. That score is for the evaluation: a
policy, reward model or annotator that could see it would make every comparison worthless.
So each stage runs in a process of its own, and in all but the evaluation importing the
gold module raises. The number of gold calls goes into each stage's manifest.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from tutelage.errors import TutelageError

__all__ = ["GOLD", "MAY_SEE_GOLD", "GoldIsolationError", "forbid_gold", "gold_calls"]

GOLD = "tutelage.worlds.helpdesk.gold"
"""The module that holds the gold score."""

MAY_SEE_GOLD = frozenset({"evaluate"})
"""Kinds of stages that may import it."""


class GoldIsolationError(TutelageError, ImportError):
    """A stage that must not see the gold score tried to import it."""


class _GoldFinder(MetaPathFinder):
    def __init__(self, stage: str) -> None:
        self._stage = stage

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuses the gold module, leaves all others to the finders that follow."""
        if fullname == GOLD or fullname.startswith(f"{GOLD}."):
            raise GoldIsolationError(
                f"stage {self._stage} tried to import {GOLD}: only evaluate stages may see the "
                "gold score, so that nothing is trained, labelled or chosen by it"
            )
        return None


def forbid_gold(stage: str) -> None:
    """Makes importing the gold module raise in this process, for good.

    Raises:
        GoldIsolationError: the module is loaded already.
    """
    if GOLD in sys.modules:
        raise GoldIsolationError(
            f"{GOLD} was loaded before stage {stage} started: a process that trains or labels "
            "must be fresh"
        )
    sys.meta_path.insert(0, _GoldFinder(stage))


def gold_calls() -> int:
    """How many answers this process has scored with gold; 0 where gold is not loaded."""
    gold = sys.modules.get(GOLD)
    return 0 if gold is None else int(gold.calls())
