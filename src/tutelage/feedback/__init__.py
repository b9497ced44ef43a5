"""Feedback: comparisons, who judges them, and where the preferences are kept."""

from tutelage.feedback.gather import Agreement, Gatherer, Pairing, agreement, pairs
from tutelage.feedback.store import PreferenceStore

__all__ = ["Agreement", "Gatherer", "Pairing", "PreferenceStore", "agreement", "pairs"]
