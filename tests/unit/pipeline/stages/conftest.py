"""Runs a stage function by itself, in this process, on files of the test."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification

from tutelage.config import Recipe
from tutelage.models import RewardModel
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.references import References
from tutelage.tracking.metrics import MetricWriter
from tutelage.tracking.progress import NullProgress


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[[str, Sequence[Mapping[str, Any]]], str]:
    """Writes rows to a file; returns the reference to it."""

    def write(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., StageContext]:
    """A stage's context that writes into a new folder each time."""
    made = 0

    def build(seed: int = 0) -> StageContext:
        nonlocal made
        made += 1
        folder = tmp_path / f"stage{made}"
        folder.mkdir()
        return StageContext(
            name="stage",
            folder=folder,
            seed=seed,
            threads=1,
            progress=NullProgress(),
            metrics=MetricWriter([]),
            references=References(),
        )

    return build


@pytest.fixture
def read_rows() -> Callable[[Path], list[dict[str, Any]]]:
    """The rows of a file that a stage wrote."""
    return lambda path: [json.loads(line) for line in path.read_text().splitlines()]


NOISE = """
import random

def noise(prompt, completion):
    return random.random() + 0.1 * completion.text.count("a")
"""
"""A reward that takes its random numbers from Python's own generator."""

QUICK = {"learning_rate": 1e-2, "warmup": 0.2}


def turn(text: str, role: str = "user") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory, tiny_causal_lm, tiny_tokenizer) -> Recipe:
    """One stage of each kind that trains or samples, some steps of milliseconds each."""
    folder = tmp_path_factory.mktemp("tiny")

    def write(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(folder / name)

    lm = tiny_causal_lm()
    lm.save_pretrained(folder / "lm")
    tiny_tokenizer.save_pretrained(folder / "lm")
    torch.manual_seed(1)
    scorer = LlamaForSequenceClassification(type(lm.config)(**lm.config.to_dict(), num_labels=1))
    RewardModel(scorer.eval(), tiny_tokenizer).save(folder / "rm")
    (folder / "noise.py").write_text(NOISE)
    prompts = [{"id": str(i), "prompt": turn(f"say {i} and {i * 7}")} for i in range(24)]
    answers = [f"{i} then {'a' * (i % 5)}" for i in range(48)]
    told = [
        {"id": row["id"], "messages": row["prompt"] + turn(answers[i], "assistant")}
        for i, row in enumerate(prompts)
    ]
    judged = [
        {**row, "chosen": answers[i], "rejected": answers[i + 5]} for i, row in enumerate(prompts)
    ]
    texts = [{"id": str(i), "text": f"line {i} of {i * i} words, {answers[i]}"} for i in range(48)]
    files = {
        "prompts": write("prompts.jsonl", prompts),
        "sft": write("sft.jsonl", told),
        "preferences": write("preferences.jsonl", judged),
        "texts": write("texts.jsonl", texts),
    }
    lm_path, small = str(folder / "lm"), {"minibatch": 4, "microbatch_tokens": 64}
    stages = {
        "pretrain": {
            "data": [files["texts"]],
            "steps": 8,
            "rows": 4,
            "length": 8,
            "model": {
                "hidden_size": 16,
                "layers": 1,
                "heads": 2,
                "mlp_size": 16,
                "context": 16,
                "vocabulary": 300,
            },
        },
        "sft": {
            "model": lm_path,
            "data": [files["sft"]],
            "epochs": 1.4,
            "batch": small,
            "optimizer": QUICK,
        },
        "sample": {
            "model": lm_path,
            "prompts": files["prompts"],
            "sampling": {"samples_per_prompt": 2, "max_tokens": 5, "batch_size": 2},
        },
        "reward": {
            "model": lm_path,
            "phases": [
                {"preferences": [files["preferences"]], "epochs": 0.7, "optimizer": QUICK},
                {"preferences": [files["preferences"]], "epochs": 0.9, "optimizer": QUICK},
            ],
            "batch": small,
        },
        "dpo": {
            "model": lm_path,
            "preferences": [files["preferences"]],
            "epochs": 1.4,
            "batch": small,
            "optimizer": QUICK,
        },
        "train": {
            "model": lm_path,
            "prompts": files["prompts"],
            "critic": "reward",
            "reward": {
                "model": str(folder / "rm"),
                "functions": {f"{folder / 'noise.py'}:noise": 0.5},
            },
            "probes": files["prompts"],
            "probe_every": 3,
            "probe_count": 3,
            "ppo": {
                "steps": 20,
                "prompts_per_step": 4,
                "batch": {"minibatch": 3, "microbatch_tokens": 32},
                "sampling": {"max_tokens": 5, "samples_per_prompt": 2},
                "kl": {"coefficient": 0.1, "target": 0.5, "horizon": 50},
                "truncation": {"mode": "penalise", "value": -0.5},
                "critic_warmup": 2,
                "policy": {"learning_rate": 1e-3},
                "critic": {"learning_rate": 1e-2},
                # Rings in every round.
                "alarms": {"entropy_collapse_limit": 99.0},
            },
        },
    }
    return Recipe.model_validate(
        {
            "name": "tiny",
            "threads": 1,
            "stages": {name: {"kind": name, **stage} for name, stage in stages.items()},
        }
    )


def without_clocks(value: Any) -> Any:
    """The same JSON without what depends on how fast the machine was."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not key.startswith("throughput/")}
        return {key: without_clocks(item) for key, item in kept.items() if key != "seconds"}
    return [without_clocks(item) for item in value] if isinstance(value, list) else value


def file_contents(folder: Path) -> dict[str, Any]:
    """Every file: bytes, or for files with clock times in them, what else they say.

    TensorBoard's files are left out: they are full of clock times, and each process has its own.
    """
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.startswith("tensorboard/"):
            continue
        if name.endswith("metrics.jsonl"):
            found[name] = [without_clocks(json.loads(x)) for x in path.read_text().splitlines()]
        elif path.name in ("state.json", "manifest.json"):
            row = json.loads(path.read_text())
            found[name] = without_clocks({k: v for k, v in row.items() if k != "digest"})
            if path.name == "manifest.json":
                del found[name]["files"]
        else:
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, Any]]:
    """`contents(folder)`: every file; bytes, or for files with clock times the rest of them."""
    return file_contents
