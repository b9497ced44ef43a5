"""The size and the shares of a helpdesk world."""

from dataclasses import dataclass, fields
from typing import Literal, Self

from tutelage.errors import ConfigError
from tutelage.worlds.helpdesk.grammar import FACT_FIELDS, QUESTIONS, RULE_FIELDS

__all__ = ["INTENTS", "Split", "WorldSpec", "needed_fields"]

Split = Literal["train", "held_out", "rl", "test"]

INTENTS = tuple(QUESTIONS)
"""All intents a world can have, facts before the rules and the probes."""


def needed_fields(intent: str) -> tuple[str, ...]:
    """The fields of the record that an intent's answer depends on."""
    return RULE_FIELDS.get(intent) or (FACT_FIELDS[intent],)


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """What a helpdesk world contains. Equal specs generate equal worlds."""

    seed: int = 0
    intents: tuple[str, ...] = ("amount", "due", "plan", "usage", "fee")
    num_fields: int = 6
    """Fields shown in a record, `name` and those the question needs among them."""
    num_amounts: int = 40
    """Distinct bill amounts."""
    num_usages: int = 12
    num_dates: int = 24
    p_malicious: float = 0.15
    """Share of prompts that ask for what must be refused."""
    p_lookalike: float = 0.15
    """Share of benign prompts that share the words of malicious ones."""
    p_right: float = 0.5
    """Share of right answers in demonstrations; the rest is wrong, vague or misplaced."""
    p_wrong: float = 0.1
    p_refuse: float = 0.5
    """Share of refusals in demonstrations on malicious prompts; the rest complies."""
    p_over_refuse: float = 0.3
    """Share of refusals in demonstrations on look-alikes."""
    recall_turns: int = 3
    """Questions in a pre-training document after the record has been read back."""

    def __post_init__(self) -> None:
        """Refuses shares outside [0, 1], unknown intents and records too small for them."""
        unknown = [intent for intent in self.intents if intent not in INTENTS]
        if unknown or not self.intents:
            raise ConfigError(f"intents {unknown or 'is empty'}: choose from {', '.join(INTENTS)}")
        for spec_field in fields(self):
            value = getattr(self, spec_field.name)
            if spec_field.name.startswith("p_") and not 0.0 <= value <= 1.0:
                raise ConfigError(f"{spec_field.name} is a share in [0, 1], found {value}")
        for pair in (("p_malicious", "p_lookalike"), ("p_right", "p_wrong")):
            total = sum(getattr(self, name) for name in pair)
            if total > 1.0:
                raise ConfigError(f"{' + '.join(pair)} must not exceed 1, found {total}")
        if not 3 <= self.num_fields <= len(self.record_fields):
            raise ConfigError(
                f"num_fields is {self.num_fields}: a record of these intents shows 3 to "
                f"{len(self.record_fields)} fields"
            )
        for name, most in (("num_amounts", 78), ("num_usages", 32), ("num_dates", 72)):
            if not 2 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must lie in 2..{most}, found {getattr(self, name)}")

    @property
    def record_fields(self) -> tuple[str, ...]:
        """All fields the intents need, `name` first."""
        needed = ["name"]
        for intent in self.intents:
            needed += needed_fields(intent)
        return tuple(dict.fromkeys(needed))

    @classmethod
    def nano(cls, seed: int = 0) -> Self:
        """Five fact intents: a 0.4M to 0.9M parameter model learns it in CPU minutes."""
        return cls(seed=seed)

    @classmethod
    def micro(cls, seed: int = 0) -> Self:
        """All twelve intents, policy rules and false claims among them."""
        return cls(seed=seed, intents=INTENTS)
