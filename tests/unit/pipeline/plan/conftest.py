"""Model folders that hold a config.json and nothing else, and recipes of one stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage.config import Recipe

LLAMA = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}


@pytest.fixture
def config_only(tmp_path: Path) -> Callable[..., str]:
    """`config_only("llama", hidden_size=32)`: a folder without weights."""
    made = 0

    def write(architecture: str = "llama", **settings: Any) -> str:
        nonlocal made
        from transformers import AutoConfig

        made += 1
        folder = tmp_path / f"model{made}"
        given = {**LLAMA, **settings} if architecture == "llama" else settings
        AutoConfig.for_model(architecture, **given).save_pretrained(folder)
        return str(folder)

    return write


@pytest.fixture
def recipe_of() -> Callable[..., Recipe]:
    """`recipe_of(sft={...})`: a recipe whose stages are of the kind that names them."""

    def build(**stages: dict[str, Any]) -> Recipe:
        named = {name: {"kind": name, **stage} for name, stage in stages.items()}
        return Recipe.model_validate({"name": "small", "threads": 2, "stages": named})

    return build
