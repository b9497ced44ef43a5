"""What `evaluation.json` says: several models measured in the same ways.

The first model is the baseline, the others are what the run made of it. Roles give
two measures their part in the story: the *proxy* is a learned reward, of the kind that
is trained on; the *gold* is a judgement that training never saw.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from tutelage.tracking.format import decimals_for

__all__ = ["Checkpoint", "Difference", "Estimate", "EvaluationRecord", "Measure", "Model"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its confidence interval over `n` samples."""

    mean: float
    low: float
    high: float
    n: int | None = None

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Reads `{"mean", "low", "high", "n"}`; without an interval the mean is the interval."""
        mean = float(row["mean"])
        low, high = row.get("low"), row.get("high")
        return cls(
            mean,
            mean if low is None else float(low),
            mean if high is None else float(high),
            row.get("n"),
        )


@dataclass(frozen=True, slots=True)
class Measure:
    """A way of measuring: a row of the headline table."""

    key: str
    label: str
    unit: str
    better: Literal["higher", "lower"] | None
    description: str
    role: str

    @property
    def is_evidence(self) -> bool:
        """Whether moving it is an achievement; moving the proxy is what training is for."""
        return self.role != "proxy"

    @property
    def scale(self) -> int:
        """What a value is multiplied by to be shown in the unit."""
        return 100 if self.unit == "%" else 1

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Only `key` is needed; the key is the role where none is given."""
        key = row["key"]
        return cls(
            key,
            row.get("label") or key.replace("_", " "),
            _UNITS.get(row.get("unit") or "", row.get("unit") or ""),
            row.get("better"),
            row.get("description") or "",
            row.get("role") or key,
        )


@dataclass(frozen=True, slots=True)
class Model:
    """A column of the headline table."""

    name: str
    label: str
    measures: Mapping[str, Estimate]
    stage: str
    """The stage that made it; equal to the name where none is given."""

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Measures that are null, or taken over nothing, are left out."""
        name = row["name"]
        return cls(
            name,
            _title(row.get("label") or name),
            _estimates(row["measures"]),
            row.get("stage") or name,
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """Model minus baseline on the same prompts, with the interval of the difference."""

    model: str
    baseline: str
    measure: str
    mean: float
    low: float
    high: float

    @property
    def direction(self) -> int:
        """1 or -1 where the interval excludes 0, else 0."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on its way: measured in the middle of a stage."""

    stage: str
    step: int
    measures: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """The whole file."""

    models: tuple[Model, ...]
    measures: tuple[Measure, ...]
    differences: tuple[Difference, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    histograms: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)
    length_control: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    samples: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Reads the form that `docs/run-folder.md` describes.

        Raises:
            KeyError, TypeError, ValueError: the value is not of that form.
        """
        names = ("model", "baseline", "measure", "mean", "low", "high")
        return cls(
            models=tuple(Model.from_json(model) for model in row["models"]),
            measures=tuple(Measure.from_json(measure) for measure in row["measures"]),
            differences=tuple(
                Difference(**{name: difference[name] for name in names})
                for difference in row.get("differences") or ()
            ),
            checkpoints=tuple(
                Checkpoint(point["stage"], point["step"], _estimates(point["measures"]))
                for point in row.get("checkpoints") or ()
            ),
            histograms=row.get("histograms") or {},
            length_control=tuple(row.get("length_control") or ()),
            notes=tuple(row.get("notes") or ()),
            samples=tuple(row.get("samples") or ()),
        )

    @property
    def baseline(self) -> Model:
        """The model the others are compared with."""
        return self.models[0]

    def role(self, role: str) -> Measure | None:
        """The measure that plays `role`, where there is one."""
        return next((measure for measure in self.measures if measure.role == role), None)

    def difference(self, model: str, measure: str, baseline: str = "") -> Difference | None:
        """The stated difference to `baseline`, by default to the first model."""
        wanted = (model, baseline or self.baseline.name, measure)
        for found in self.differences:
            if (found.model, found.baseline, found.measure) == wanted:
                return found
        return None

    def between(self, model: str, other: str, measure: str) -> Difference | None:
        """Model minus other, also where the file states other minus model."""
        stated = self.difference(model, measure, other)
        reverse = self.difference(other, measure, model)
        if stated or not reverse:
            return stated
        return Difference(model, other, measure, -reverse.mean, -reverse.high, -reverse.low)

    def decimals(self, measure: Measure) -> int:
        """Decimals that suit all models' values of one measure."""
        found = [it for model in self.models if (it := model.measures.get(measure.key))]
        if measure.role == "cost" and all(it.low == it.high for it in found):
            return 0
        return decimals_for([(it.low, it.high) for it in found], measure.unit)

    def change(self, model: Model, measure: Measure) -> Literal["better", "worse"] | None:
        """Whether the model differs from the baseline beyond the interval, for good or ill."""
        difference = self.difference(model.name, measure.key)
        if difference is None or difference.direction == 0 or measure.better is None:
            return None
        wanted = 1 if measure.better == "higher" else -1
        return "better" if difference.direction == wanted else "worse"


_UNITS = {"share": "%", "sigma": "\u03c3"}
"""How two units are shown; a share is a fraction on disk and per cent on a page."""

_ACRONYMS = {"ai", "sft", "ppo", "dpo", "grpo", "rloo", "rlhf", "rlaif"}


def _title(label: str) -> str:
    """A model's name as a heading: `ppo guarded` becomes `PPO guarded`."""
    words = [
        word.upper() if word in _ACRONYMS else word for word in label.replace("_", " ").split(" ")
    ]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def _estimates(rows: Mapping[str, Any]) -> dict[str, Estimate]:
    return {
        key: Estimate.from_json(row)
        for key, row in rows.items()
        if row is not None and row.get("mean") is not None and row.get("n") != 0
    }
