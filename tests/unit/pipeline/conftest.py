"""Recipes of fake stages, and the registry that runs them without torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage.config import Recipe
from tutelage.pipeline.registry import Registry


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Every kind is `fake_stage.py` beside this file; children find it on the path."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return Registry({"sft": "fake_stage", "evaluate": "fake_stage"})


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """Builds a recipe: `recipe(a=["inputs/text"], b=["a"])`, a stage with what it reads.

    A stage given as a string reads the input and does what the string says.
    """
    text = tmp_path / "text.txt"
    text.write_text("text")

    def build(*, parallel: int = 2, seed: int = 0, **stages: list[str] | str | dict) -> Recipe:
        sections: dict[str, Any] = {}
        for name, given in stages.items():
            if isinstance(given, str):
                given = {"model": f"org/{given}"}
            elif isinstance(given, list):
                given = {"data": given}
            sections[name] = {"kind": "sft", "model": "org/ok", "data": ["inputs/text"], **given}
        return Recipe.model_validate(
            {
                "name": "fake",
                "seed": seed,
                "threads": 2,
                "parallel": parallel,
                # Its import takes seconds in each of these stages, which need no torch.
                "trackers": {"tensorboard": False},
                "inputs": {"text": str(text)},
                "stages": sections,
            }
        )

    return build
