"""What a held-out rater is: something that rates answers and takes no part in training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, Self

from tutelage.records import Prompt, Turn

__all__ = ["Answer", "Measure", "NoRater", "Rater", "Ratings"]

Ratings = Mapping[str, Sequence[float | None]]
"""One number per answer under each measure's key; None where the measure does not apply."""


@dataclass(frozen=True)
class Answer:
    """What a model wrote, as a rater sees it."""

    text: str
    ended: bool
    """The model stopped by itself; False when the token limit cut it off."""
    turns: Sequence[Turn] = ()
    """The answers of a conversation; empty where there was one."""

    @classmethod
    def from_probe(cls, row: Mapping[str, Any]) -> Self:
        """What a row of `probes.jsonl` holds."""
        return cls(
            row["text"], row["ended"], [Turn.from_json(turn) for turn in row.get("turns", ())]
        )


@dataclass(frozen=True)
class Measure:
    """A way of measuring, and how to read it."""

    key: str
    label: str
    unit: str
    better: Literal["higher", "lower"] | None
    description: str
    role: str = ""
    """`gold` or `proxy` for the two that tell the story of over-optimisation."""

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


class Rater(Protocol):
    """Rates answers by one or several measures."""

    @property
    def measures(self) -> Sequence[Measure]:
        """What the ratings' keys mean."""
        ...

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Ratings:
        """One number per answer and measure."""
        ...


class NoRater:
    """Rates nothing: for models without a held-out signal."""

    measures: Sequence[Measure] = ()

    def rate(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Ratings:
        """No measures."""
        return {}
