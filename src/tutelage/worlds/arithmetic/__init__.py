"""The arithmetic world: sums, whose right answers are known without anyone's opinion.

    Sum ─┬─ documents ──────> pre-training: several sums with their results
         ├─ demonstrations ─> SFT: a question and its result
         └─ prompts ────────> RL and evaluation, with the result as the reference

A sum belongs to one split by the hash of its text, whatever the seed: none that is trained on is
asked in the test.
"""

from tutelage.worlds.arithmetic.sums import SPLITS, Split, Sum, sums
from tutelage.worlds.arithmetic.texts import SumsDocument, demonstrations, documents, prompts

__all__ = [
    "SPLITS",
    "Split",
    "Sum",
    "SumsDocument",
    "demonstrations",
    "documents",
    "prompts",
    "sums",
]
