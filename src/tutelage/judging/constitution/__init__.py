"""Principles in words, and what comes of them: revised answers and preferences.

constitution.yaml ──> Constitution ─┬─ revise ──> Transcript ──> Demonstration
                                    └─ prefer ──> Preference

See docs/constitution.md.
"""

from tutelage.judging.constitution.asked_writer import AskedWriter
from tutelage.judging.constitution.document import (
    BUNDLED,
    Constitution,
    ConstitutionFile,
    Principle,
    load_constitution,
)
from tutelage.judging.constitution.preference import (
    PrincipleJudge,
    Unscorable,
    prefer,
    read_verdict,
    written_judge,
)
from tutelage.judging.constitution.revision import (
    Revision,
    Transcript,
    answer_prompts,
    revise,
)
from tutelage.judging.constitution.writer import Conversation, Writer, with_preamble

__all__ = [
    "BUNDLED",
    "AskedWriter",
    "Constitution",
    "ConstitutionFile",
    "Conversation",
    "Principle",
    "PrincipleJudge",
    "Revision",
    "Transcript",
    "Unscorable",
    "Writer",
    "answer_prompts",
    "load_constitution",
    "prefer",
    "read_verdict",
    "revise",
    "with_preamble",
    "written_judge",
]
