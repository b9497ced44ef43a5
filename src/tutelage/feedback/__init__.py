"""Feedback: comparisons, who judges them, and where the preferences are kept."""

from tutelage.feedback.events import Event, StaleEventError
from tutelage.feedback.gather import Agreement, Gatherer, Pairing, agreement, pairs
from tutelage.feedback.store import PreferenceStore

__all__ = [
    "Agreement",
    "Event",
    "Gatherer",
    "Pairing",
    "PreferenceStore",
    "StaleEventError",
    "agreement",
    "pairs",
]
