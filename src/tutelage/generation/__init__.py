"""Completions out of a policy: the engine protocol and its implementations."""

from tutelage.generation.conversation import ConversationEngine
from tutelage.generation.engine import Engine, NotFiniteError, Sampling
from tutelage.generation.fake import FakeEngine
from tutelage.generation.local import LocalEngine
from tutelage.generation.writer import LocalWriter

__all__ = [
    "ConversationEngine",
    "Engine",
    "FakeEngine",
    "LocalEngine",
    "LocalWriter",
    "NotFiniteError",
    "Sampling",
]
