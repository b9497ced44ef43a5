"""The helpdesk world: customers ask about their account, and the truth is in the prompt.

    WorldSpec ─┬─ recall_documents ──> pre-training
               ├─ demonstrations ────> SFT
               ├─ dialogue_... ─────> SFT and reward models of conversations
               └─ prompts ──> policy ──> Comparison ─┬─ People ─────────> Preference
                                                     └─ SimulatedJudge ─> Preference
    Customer <──> policy     asks on, asks again, or leaves
    HelpdeskReviser          criticises and revises answers by rules

The gold score is in `tutelage.worlds.helpdesk.gold`, which is not imported here: only
`tutelage.evaluation` may. See docs/helpdesk.md.
"""

from tutelage.worlds.helpdesk.annotators import People
from tutelage.worlds.helpdesk.corpus import (
    RecallDocument,
    demonstrations,
    recall_documents,
    tokenizer_texts,
    vocabulary,
)
from tutelage.worlds.helpdesk.customer import Customer
from tutelage.worlds.helpdesk.dialogues import dialogue_demonstrations, dialogue_prompts
from tutelage.worlds.helpdesk.judge import SimulatedJudge
from tutelage.worlds.helpdesk.ledger import Ledger
from tutelage.worlds.helpdesk.prompts import prompts
from tutelage.worlds.helpdesk.reading import TOKEN_PATTERN, SafetyCounts, safety_counts
from tutelage.worlds.helpdesk.reviser import HelpdeskReviser
from tutelage.worlds.helpdesk.spec import Split, WorldSpec

__all__ = [
    "TOKEN_PATTERN",
    "Customer",
    "HelpdeskReviser",
    "Ledger",
    "People",
    "RecallDocument",
    "SafetyCounts",
    "SimulatedJudge",
    "Split",
    "WorldSpec",
    "demonstrations",
    "dialogue_demonstrations",
    "dialogue_prompts",
    "prompts",
    "recall_documents",
    "safety_counts",
    "tokenizer_texts",
    "vocabulary",
]
