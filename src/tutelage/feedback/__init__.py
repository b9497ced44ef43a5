"""Feedback: comparisons, which to ask about, who judges them, and where preferences are kept."""

from tutelage.feedback.choice import Candidate, Chosen, Strategy, choose
from tutelage.feedback.events import Event, StaleEventError
from tutelage.feedback.gather import Agreement, Gatherer, Pairing, agreement, pairs
from tutelage.feedback.routing import Costs, Routing, route
from tutelage.feedback.store import PreferenceStore
from tutelage.feedback.trust import Trust, compared, fewest_labels, trusted_confidence

__all__ = [
    "Agreement",
    "Candidate",
    "Chosen",
    "Costs",
    "Event",
    "Gatherer",
    "Pairing",
    "PreferenceStore",
    "Routing",
    "StaleEventError",
    "Strategy",
    "Trust",
    "agreement",
    "choose",
    "compared",
    "fewest_labels",
    "pairs",
    "route",
    "trusted_confidence",
]
