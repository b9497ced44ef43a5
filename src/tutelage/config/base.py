"""The base of every configuration section.

Sections are frozen and refuse unknown keys. The string below a field is its help on
the command line and its line in the configuration reference. No torch here: a recipe
can be checked on a machine without it.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Section"]


class Section(BaseModel):
    """Frozen, typo-proof, documented by the strings below its fields."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    def to_json(self) -> dict[str, Any]:
        """The section as plain JSON values, defaults included."""
        return self.model_dump(mode="json")
