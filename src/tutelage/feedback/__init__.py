"""Feedback: comparisons, which to ask about, who judges them, and where preferences are kept."""

from tutelage.feedback.choice import Candidate, Chosen, Strategy, choose
from tutelage.feedback.gather import Agreement, Gatherer, Pairing, agreement, pairs
from tutelage.feedback.routing import Costs, Routing, route
from tutelage.feedback.store import PreferenceStore

__all__ = [
    "Agreement",
    "Candidate",
    "Chosen",
    "Costs",
    "Gatherer",
    "Pairing",
    "PreferenceStore",
    "Routing",
    "Strategy",
    "agreement",
    "choose",
    "pairs",
    "route",
]
