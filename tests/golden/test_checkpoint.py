"""A checkpoint of each release is kept: later versions must go on from it, or refuse it in words.

    tests/golden/checkpoint-<release>/00000003/   a PPO stage after three of five rounds

That of the present release is written, before it is released, with

    python tests/golden/test_checkpoint.py

A change that later releases cannot read needs a new schema number and a line in CHANGELOG.md.
"""

import json
import math
import random
import shutil
import signal
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tutelage.config import CheckpointConfig, TrainStage
from tutelage.errors import CheckpointError
from tutelage.pipeline.checkpoints import CheckpointPlace, Checkpoints, StopRequested
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.references import References
from tutelage.pipeline.stages import train
from tutelage.tracking.checkpoint import CheckpointStore
from tutelage.tracking.manifest import MANIFEST
from tutelage.tracking.metrics import MetricWriter
from tutelage.tracking.progress import Progress, StageProgress

HERE = Path(__file__).parent
RELEASES = sorted(path.name for path in HERE.glob("checkpoint-*"))
SEED, STEP, ROUNDS = 3, 3, 5

REWARD = """
def vowels(prompt, completion):
    return float(sum(letter in "aeiou" for letter in completion.text))
"""


def tiny_stage(folder: Path) -> TrainStage:
    """A PPO stage of five rounds on a model of two thousand weights."""
    words = ["<pad>", "<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template="{% for m in messages %}{{ m.content }}{% endfor %}",
    )
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    torch.manual_seed(SEED)
    LlamaForCausalLM(config).save_pretrained(folder / "lm")
    tokenizer.save_pretrained(folder / "lm")
    (folder / "vowels.py").write_text(REWARD)
    rows = [
        {"id": str(i), "prompt": [{"role": "user", "content": "abcdefgh"[i : i + 3]}]}
        for i in range(6)
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TrainStage.model_validate(
        {
            "model": str(folder / "lm"),
            "prompts": str(folder / "prompts.jsonl"),
            "reward": {"functions": {f"{folder / 'vowels.py'}:vowels": 1.0}},
            "ppo": {
                "steps": ROUNDS,
                "prompts_per_step": 4,
                "epochs": 1,
                "batch": {"minibatch": 4, "microbatch_tokens": 64},
                "sampling": {"max_tokens": 4},
                "kl": {"coefficient": 0.1, "target": 0.5, "horizon": 50},
                "policy": {"learning_rate": 1e-2},
            },
        }
    )


def run(stage: TrainStage, saved: Path, folder: Path, *, stop_at: int | None = None) -> int:
    """Runs the stage from its newest checkpoint; returns the step from which it went on."""

    def hear(event: object) -> None:
        if isinstance(event, StageProgress) and event.step == stop_at:
            signal.raise_signal(signal.SIGTERM)

    folder.mkdir()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(SEED)
    progress = Progress("train", hear, every=0)
    place = CheckpointPlace(saved, {"threads": 1, "versions": {}}, CheckpointConfig(seconds=0))
    checkpoints = Checkpoints(place, folder, progress)
    with MetricWriter.open(folder) as metrics:
        checkpoints.count_in(metrics)
        train.run(
            stage,
            StageContext("train", folder, SEED, 1, progress, metrics, References(), checkpoints),
        )
    return checkpoints.resumed_at


def test_the_present_release_has_its_checkpoint_and_it_is_small():
    release = ".".join(metadata.version("tutelage").split(".")[:3])
    assert f"checkpoint-{release}" in RELEASES
    sizes = [path.stat().st_size for path in HERE.glob("checkpoint-*/**/*") if path.is_file()]
    assert sum(sizes) < 150_000 * len(RELEASES)


@pytest.mark.parametrize("release", RELEASES)
def test_checkpoint_of_a_release_is_whole(release):
    found = CheckpointStore(HERE / release).newest(pytest.fail)
    assert found.step == STEP


@pytest.mark.parametrize("release", RELEASES)
def test_stage_goes_on_from_the_checkpoint_of_a_release(release, tmp_path):
    saved = tmp_path / "saved"
    shutil.copytree(HERE / release, saved)
    weights = load_file(saved / f"{STEP:08d}" / "tensors.safetensors")
    assert run(tiny_stage(tmp_path), saved, tmp_path / "stage") == STEP
    rows = [json.loads(x) for x in (tmp_path / "stage" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(ROUNDS))
    assert all(math.isfinite(value) for row in rows for value in row["metrics"].values())
    # It did go on: the weights are others, and near those that it started from.
    trained = load_file(tmp_path / "stage" / "model" / "model.safetensors")
    before = {name.removeprefix("policy."): each for name, each in weights.items()}
    name = "model.embed_tokens.weight"
    difference = (trained[name] - before[name]).abs().max().item()
    assert 0.0 < difference < 0.1


@pytest.mark.parametrize("release", RELEASES)
def test_checkpoint_of_a_later_schema_is_refused_in_words(release, tmp_path):
    from tutelage.tracking.fingerprint import fingerprint

    saved = tmp_path / "saved"
    shutil.copytree(HERE / release, saved)
    manifest = saved / f"{STEP:08d}" / MANIFEST
    row = {**json.loads(manifest.read_text()), "schema": 99}
    del row["digest"]
    manifest.write_text(json.dumps({**row, "digest": fingerprint(row)}))
    with pytest.raises(CheckpointError, match="schema 99, this Tutelage reads"):
        run(tiny_stage(tmp_path), saved, tmp_path / "stage")


def write_golden(folder: Path) -> Path:
    """Writes the checkpoint of the present release."""
    target = HERE / f"checkpoint-{metadata.version('tutelage')}"
    try:
        run(tiny_stage(folder), folder / "saved", folder / "stage", stop_at=STEP)
    except StopRequested:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder / "saved" / f"{STEP:08d}", target / f"{STEP:08d}")
    return target


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        print(write_golden(Path(place)))
