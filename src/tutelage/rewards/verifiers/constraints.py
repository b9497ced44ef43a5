"""Instructions that a program can check: IFEval (Zhou et al. 2023, arXiv:2311.07911), its ids.

A prompt lists ids and their arguments. `constraints` asks for all of them, which the paper calls
prompt-level strict accuracy; `constraints_share` is the share that holds (instruction level).
The paper's loose accuracy, which also tries the answer without its first and last line, is not
offered: what is forgiven there a policy would learn to write.

An empty answer holds no instruction. The checkers read an answer in time linear in its length.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tutelage.records import Prompt, Score, ScoreStatus
from tutelage.rewards.verifiers import constraints_of_form, constraints_of_words
from tutelage.rewards.verifiers.verifier import unscorable

__all__ = ["CONSTRAINTS", "Constraints"]

Check = Callable[[str, Mapping[str, Any]], bool]

CONSTRAINTS: Mapping[str, Check] = {**constraints_of_words.CHECKS, **constraints_of_form.CHECKS}
"""Checker by id: (answer, arguments) -> whether the instruction is followed."""


class Constraints:
    """The share of a prompt's instructions that the answer follows, or whether it is all."""

    at_once = 1

    def __init__(self, *, share: bool = False) -> None:
        """Args: whether following some of them is worth something."""
        self.share = share

    def verify(self, prompt: Prompt, text: str) -> Score:
        """In [0, 1]; unscorable where the prompt has no instructions or one that is not known.

        Raises:
            MissingExtraError: an instruction asks for a language, and no detector is installed.
        """
        ids = prompt.check.get("instruction_id_list")
        if not ids:
            return unscorable(prompt, "instruction_id_list")
        unknown = sorted({each for each in ids if each not in CONSTRAINTS})
        if unknown:
            return Score.failed(ScoreStatus.UNSCORABLE, f"no checker for {', '.join(unknown)}")
        held = {}
        for name, arguments in zip(ids, prompt.check["kwargs"], strict=True):
            try:
                held[name] = bool(text.strip()) and CONSTRAINTS[name](text, arguments)
            except KeyError as error:
                return Score.failed(ScoreStatus.UNSCORABLE, f"{name} has no argument {error}")
        share = sum(held.values()) / len(held)
        broken = [name for name, holds in held.items() if not holds]
        return Score(share if self.share else float(not broken), notes=", ".join(broken))
