"""What a judge goes by: a rubric in words, known by its hash.

text file                the rubric as it stands
YAML: name, rubric, criteria   the rubric, with a line for each criterion
"""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self

from tutelage.config.document import read_document
from tutelage.config.judge import GENERAL_RUBRIC as GENERAL
from tutelage.errors import ConfigError
from tutelage.tracking.fingerprint import fingerprint

__all__ = ["Rubric"]

_KEYS = ("name", "rubric", "criteria")


@dataclass(frozen=True, slots=True)
class Rubric:
    """What makes an answer good."""

    name: str
    text: str

    def __post_init__(self) -> None:
        """Refuses a rubric that says nothing."""
        if not self.text.strip():
            raise ConfigError(f"the rubric {self.name!r} is empty: say what makes an answer good")

    @property
    def sha256(self) -> str:
        """Of what it says; the name is not part of it."""
        return fingerprint(self.text)

    @classmethod
    def load(cls, source: str | Path = GENERAL) -> Self:
        """Reads `general`, a text file, or a YAML file with `rubric` and `criteria`.

        Raises:
            ConfigError: there is no such file, or it holds no rubric.
        """
        if str(source) == GENERAL:
            file = resources.files("tutelage.judging") / "rubrics" / f"{GENERAL}.txt"
            return cls(GENERAL, file.read_text("utf-8").strip())
        path = Path(source)
        if path.suffix in (".yaml", ".yml"):
            return cls._from_values(read_document(path).values, path)
        try:
            return cls(path.stem, path.read_text("utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"rubric {source}: expected {GENERAL!r}, a text file, or a YAML file: {error}"
            ) from error

    @classmethod
    def _from_values(cls, values: dict[str, Any], path: Path) -> Self:
        unknown = sorted(values.keys() - set(_KEYS))
        criteria = values.get("criteria") or {}
        if unknown or not isinstance(criteria, dict) or not isinstance(values.get("rubric"), str):
            raise ConfigError(
                f"{path}: expected `rubric`, a text, and where wanted `name` and `criteria`, each "
                f"a name with what it means; found {sorted(values)}"
            )
        lines = [f"- {name}: {' '.join(str(text).split())}" for name, text in criteria.items()]
        text = "\n".join([values["rubric"].strip(), *([""] if lines else []), *lines])
        return cls(str(values.get("name") or path.stem), text)
