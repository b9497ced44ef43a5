"""Mistakes in believing a judge.

The same kind of list as `mutant_catalogue`.
"""

from mutant import Mutant

__all__ = ["MUTANTS"]

_TRUST = "src/tutelage/feedback/trust.py"
_ROUTING = "src/tutelage/feedback/routing.py"
_CHOOSE = "src/tutelage/pipeline/stages/choose.py"
_OF_TRUST = ("tests/unit/feedback/test_trust.py",)

MUTANTS = (
    Mutant(
        "trust-goes-on-behind-a-failure",
        _TRUST,
        "        if bound > disagreement:\n            break",
        "        if bound > disagreement:\n            continue",
        "Sure verdicts that are wrong are hidden among many unsure ones that are right.",
        _OF_TRUST,
    ),
    Mutant(
        "trust-by-the-share-found",
        _TRUST,
        "    return low\n",
        "    return errors / count\n",
        "A judge is believed for its luck on a few labels.",
        _OF_TRUST,
    ),
    Mutant(
        "trust-counts-agreements",
        _TRUST,
        "bound = upper_bound(kept.count(False)",
        "bound = upper_bound(kept.count(True)",
        "A judge is believed where people differ from it.",
        _OF_TRUST,
    ),
    Mutant(
        "distrusted-answers-stand",
        _ROUTING,
        "for candidate in said if candidate.confidence >= trusted)",
        "for candidate in said)",
        "What the judge is not sure of is trained on all the same.",
        ("tests/unit/feedback/test_routing.py",),
    ),
    Mutant(
        "trust-in-the-other-order",
        _CHOOSE,
        "theirs = fmean(turned(row, its.comparison).p_a for row in people[name])",
        "theirs = fmean(row.p_a for row in people[name])",
        "People's labels of exchanged answers count as disagreement.",
        ("tests/unit/pipeline/stages/test_choose.py",),
    ),
)
