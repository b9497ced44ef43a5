"""Programs that tell a right answer from a wrong one; docs/verifiers.md states their rules."""

from tutelage.rewards.verifiers.registry import VERIFIERS, load_verifier, verifier_label
from tutelage.rewards.verifiers.verifier import Verifier, VerifierReward

__all__ = ["VERIFIERS", "Verifier", "VerifierReward", "load_verifier", "verifier_label"]
