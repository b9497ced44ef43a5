"""The base of every configuration section.

Sections are frozen and refuse unknown keys. The string below a field is its help on
the command line and its line in the configuration reference. No torch here: a recipe
can be checked on a machine without it.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["Section"]


class Section(BaseModel):
    """Frozen, typo-proof, documented by the strings below its fields.

    A section given in part keeps the rest of its field's default: where `optimizer` is
    `OptimizerConfig(learning_rate=2e-5)` by default, `optimizer: {warmup: 0.1}` keeps 2e-5.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _keep_defaults_of_fields(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        kept = dict(values)
        for name, field in cls.model_fields.items():
            if isinstance(field.default, Section) and isinstance(kept.get(name), Mapping):
                kept[name] = _over(field.default, kept[name])
        return kept

    def to_json(self) -> dict[str, Any]:
        """The section as plain JSON values, defaults included."""
        return self.model_dump(mode="json")


def _over(default: Section, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values, completed by those of the default, section by section."""
    merged = {name: getattr(default, name) for name in type(default).model_fields} | dict(given)
    for name, value in given.items():
        inner = getattr(default, name, None)
        if isinstance(inner, Section) and isinstance(value, Mapping):
            merged[name] = _over(inner, value)
    return merged
