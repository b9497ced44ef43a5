"""A stage that was interrupted ends as one that was not: equal bit for bit, whatever it was."""

import importlib
import json
import os
import random
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tutelage.config import CheckpointConfig, LoRAConfig
from tutelage.errors import CheckpointError
from tutelage.pipeline.checkpoints import CheckpointPlace, Checkpoints, StopRequested
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.fingerprint import describe_stage
from tutelage.pipeline.references import References
from tutelage.pipeline.unfinished import stage_checkpoints
from tutelage.tracking.checkpoint import CheckpointStore
from tutelage.tracking.metrics import MetricWriter
from tutelage.tracking.progress import Progress, StageMessage, StageProgress

SEED = 5
EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "higher_or_lower.py"
ABOUT = {"threads": 1, "versions": {}}


@dataclass
class Workshop:
    """Runs a stage function as its own process would, one folder for each time it is started."""

    root: Path
    started: int = 0
    messages: list[str] = field(default_factory=list)

    def store(self, stage) -> CheckpointStore:
        info = describe_stage(stage, SEED, References())
        return CheckpointStore(stage_checkpoints(self.root, stage.kind, info), keep=1000)

    def run(self, stage, *, stop_at: int | None = None) -> tuple[Path, dict[str, float]]:
        """Runs the stage from its newest checkpoint; SIGTERM comes during step `stop_at`."""

        def hear(event):
            if isinstance(event, StageProgress) and event.step == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            elif isinstance(event, StageMessage):
                self.messages.append(event.text)

        self.started += 1
        folder = self.root / f"attempt{self.started}"
        folder.mkdir(parents=True)
        random.seed(SEED)
        np.random.seed(SEED)
        torch.manual_seed(SEED)
        place = CheckpointPlace(
            self.store(stage).folder, ABOUT, CheckpointConfig(seconds=0, keep=1000)
        )
        progress = Progress(stage.kind, hear, every=0)
        checkpoints = Checkpoints(place, folder, progress)
        with MetricWriter.open(folder, seconds=checkpoints.earlier_seconds) as metrics:
            checkpoints.count_in(metrics)
            context = StageContext(
                stage.kind, folder, SEED, 1, progress, metrics, References(), checkpoints
            )
            module = importlib.import_module(f"tutelage.pipeline.stages.{stage.kind}")
            return folder, module.run(stage, context)

    def interrupt(self, stage, step: int) -> None:
        with pytest.raises(StopRequested) as stopped:
            self.run(stage, stop_at=step)
        assert stopped.value.step == step


@pytest.fixture(scope="module")
def outcome(contents):
    """What a stage leaves: its files, its numbers, and its whole state after the last step."""

    def of(workshop: Workshop, stage) -> dict[str, Any]:
        folder, numbers = workshop.run(stage)
        last = workshop.store(stage).newest(workshop.messages.append)
        return {"files": contents(folder), "numbers": numbers, "state": contents(last.path)}

    return of


@pytest.fixture(scope="module")
def straight(tiny_recipe, outcome, tmp_path_factory):
    """The outcome of a kind of stage that was never interrupted, and where its checkpoints are."""
    known: dict[str, tuple[Workshop, dict[str, Any]]] = {}

    def of(kind: str) -> tuple[Workshop, dict[str, Any]]:
        if kind not in known:
            workshop = Workshop(tmp_path_factory.mktemp(kind))
            known[kind] = workshop, outcome(workshop, tiny_recipe.stages[kind])
        return known[kind]

    return of


def test_stages_take_more_than_a_few_steps(straight):
    """Otherwise nothing below would say much."""
    last = {
        kind: int(straight(kind)[1]["files"]["metrics.jsonl"][-1]["step"])
        for kind in ("pretrain", "sft", "sample", "reward", "dpo", "train")
    }
    assert last == {"pretrain": 7, "sft": 8, "sample": 24, "reward": 8, "dpo": 8, "train": 19}


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("pretrain", [1, 4, 8]),
        ("sft", [1, 4, 9]),
        ("sample", [4, 12, 24]),
        # Phase 1 has four steps: within it, at its end, within phase 2, at the end of all.
        ("reward", [2, 4, 7, 9]),
        ("dpo", [1, 4, 9]),
        # The critic alone for two rounds; probes after 3, 6, ... rounds.
        ("train", [2, 9, 19]),
    ],
)
def test_interrupted_stage_ends_as_one_that_was_not(
    kind, steps, tiny_recipe, straight, outcome, tmp_path
):
    stage, expected = tiny_recipe.stages[kind], straight(kind)[1]
    for step in steps:
        workshop = Workshop(tmp_path / str(step))
        workshop.interrupt(stage, step)
        assert outcome(workshop, stage) == expected
        assert f"goes on from step {step}" in workshop.messages


@pytest.mark.parametrize("kind", ["reward", "train"])
def test_stage_interrupted_at_every_step_ends_the_same(
    kind, tiny_recipe, straight, outcome, tmp_path
):
    stage, expected = tiny_recipe.stages[kind], straight(kind)[1]
    workshop = Workshop(tmp_path)
    for step in range(1, 10):
        workshop.interrupt(stage, step)
    assert outcome(workshop, stage) == expected


VARIANTS = {
    "curriculum and falling temperature": {
        "ppo": {"curriculum": {"uniform_share": 0.3}, "final_temperature": 0.5}
    },
    "shared trunk": {"critic": "policy", "critic_trunk": "shared"},
    "frozen blocks": {"critic": "policy", "critic_trunk": "shared", "ppo": {"frozen_layers": 1}},
    "adapters": {"lora": {"rank": 2, "alpha": 4}},
    "adapters, shared trunk": {"critic": "policy", "critic_trunk": "shared", "lora": {"rank": 2}},
    "adapters for both over a frozen block": {
        "critic": "policy",
        "critic_trunk": "adapter",
        "lora": {"rank": 2, "alpha": 4},
        "ppo": {"frozen_layers": 1},
    },
    "conversations": {
        "environment": {"name": f"{EXAMPLE}:HigherOrLower", "max_turns": 3, "max_tokens": 120},
        "ppo": {"sampling": {"max_tokens": 14}},
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_of_ppo_that_was_interrupted_ends_as_one_that_was_not(
    variant, tiny_recipe, outcome, tmp_path
):
    stage = type(tiny_recipe.stages["train"]).model_validate(
        merged(tiny_recipe.stages["train"].model_dump(), VARIANTS[variant])
    )
    expected = outcome(Workshop(tmp_path / "straight"), stage)
    assert expected["state"]["state.json"]["learner"]["optimizers"].keys() == {"policy", "value"}
    workshop = Workshop(tmp_path / "interrupted")
    for step in (2, 9):
        workshop.interrupt(stage, step)
    assert outcome(workshop, stage) == expected


LEARNERS = {
    "grpo": {"grpo": {"scale_by_std": False, "aggregation": "fixed_length", "ratio": "sequence"}},
    "rloo": {"rloo": {"epochs": 2, "kl": {"target": 0.5, "horizon": 50}}},
    "reinforce": {"reinforce": {"batch": {"minibatch": 8}, "baseline": "moving"}},
    "reinforce++": {"reinforce_pp": {"epochs": 2, "baseline": "group"}},
    "online_dpo": {"online_dpo": {"epochs": 2, "label": "soft", "loss": {"beta": 0.3}}},
}


def stage_of(algorithm: str, tiny_recipe):
    """The train stage of the tiny recipe with another learner in the place of PPO."""
    stage = tiny_recipe.stages["train"]
    ((section, own),) = LEARNERS[algorithm].items()
    shared = {
        "steps": 8,
        "prompts_per_step": 4,
        "batch": {"minibatch": 3, "microbatch_tokens": 32},
        "sampling": {"max_tokens": 5, "samples_per_prompt": 2},
        "policy": {"learning_rate": 1e-3},
    }
    given = {k: v for k, v in stage.model_dump().items() if k not in ("ppo", "critic")}
    return type(stage).model_validate(
        {**given, "algorithm": algorithm, section: merged(shared, own)}
    )


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_learner_that_was_interrupted_ends_as_one_that_was_not(
    algorithm, tiny_recipe, outcome, tmp_path
):
    stage = stage_of(algorithm, tiny_recipe)
    expected = outcome(Workshop(tmp_path / "straight"), stage)
    state = expected["state"]["state.json"]
    assert state["learner"]["optimizers"].keys() == {"policy"}
    assert "critic" not in state
    assert not [name for name in expected["files"] if name.startswith("critic/")]
    assert ("baseline" in state) == (algorithm == "reinforce")
    workshop = Workshop(tmp_path / "interrupted")
    for step in (2, 5):
        workshop.interrupt(stage, step)
    assert outcome(workshop, stage) == expected


COARSE = """
def coarse(prompt, completion):
    return float(len(completion.text) > 8)
"""
"""A reward that often gives all completions of a prompt the same score."""


def test_dynamic_sampling_that_was_interrupted_ends_as_if_it_was_not(
    tiny_recipe, outcome, tmp_path
):
    """Further batches take prompts out of the same order, of which the rest comes later."""
    (tmp_path / "coarse.py").write_text(COARSE)
    given = merged(stage_of("grpo", tiny_recipe).model_dump(), {"grpo": {"extra_batches": 2}})
    reward = {"functions": {f"{tmp_path}/coarse.py:coarse": 1.0}}
    stage = type(tiny_recipe.stages["train"]).model_validate({**given, "reward": reward})
    expected = outcome(Workshop(tmp_path / "straight"), stage)
    rounds = [row["metrics"] for row in expected["files"]["metrics.jsonl"]]
    assert sum(row["group/thrown"] > 0 for row in rounds) > 2
    workshop = Workshop(tmp_path / "interrupted")
    for step in (2, 5):
        workshop.interrupt(stage, step)
    assert outcome(workshop, stage) == expected


def test_moving_baseline_is_a_needed_part_of_the_state(tiny_recipe, outcome, tmp_path):
    """Negative control: with the baseline left as it was earlier, the rest ends differently."""
    stage = stage_of("reinforce", tiny_recipe)
    made = Workshop(tmp_path / "straight")
    expected = outcome(made, stage)
    older, newer = (made.store(stage).folder / f"{step:08d}" for step in (2, 6))
    changed = tmp_path / "changed"
    shutil.copytree(newer, changed)
    age(changed, older, "baseline")
    workshop = Workshop(tmp_path / "run")
    about = json.loads((newer / "manifest.json").read_text())["about"]

    def copy_changed(folder):
        shutil.copytree(changed, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()

    workshop.store(stage).save(6, about, copy_changed)
    assert outcome(workshop, stage)["files"] != expected["files"]


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The base with the changes in it, section by section."""
    inner = {k: merged(base.get(k) or {}, v) for k, v in changes.items() if isinstance(v, dict)}
    return {**base, **changes, **inner}


def test_time_goes_on_where_it_stopped(tiny_recipe, straight, tmp_path):
    workshop = Workshop(tmp_path)
    workshop.interrupt(tiny_recipe.stages["sft"], 4)
    folder, _ = workshop.run(tiny_recipe.stages["sft"])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert seconds[-1] > 0


PARTS = {
    "pretrain": ["model", "learner", "batches", "result"],
    "sft": ["model", "learner", "batches"],
    "sample": ["generator", "totals"],
    "reward": ["model", "learner", "batches"],
    "dpo": ["model", "learner", "batches"],
    "train": [
        "policy",
        "critic",
        "learner",
        "prompts",
        "sampler",
        "kl_coefficient",
        "probes",
        "recent",
        "alarms",
        "random",
    ],
}


def age(newer: Path, older: Path, part: str) -> None:
    """Gives a part of a checkpoint the state that it had at an older one."""
    from safetensors.torch import load_file, save_file

    states = [json.loads((path / "state.json").read_text()) for path in (newer, older)]
    tensors = [load_file(path / "tensors.safetensors") for path in (newer, older)]
    states[0][part] = states[1][part]
    kept = {name: each for name, each in tensors[0].items() if name.split(".")[0] != part}
    old = {name: each for name, each in tensors[1].items() if name.split(".")[0] == part}
    (newer / "state.json").write_text(json.dumps(states[0]))
    save_file({**kept, **old}, newer / "tensors.safetensors")


@pytest.mark.parametrize(
    ("kind", "part"), [(kind, part) for kind, parts in PARTS.items() for part in parts]
)
def test_each_part_of_the_state_is_needed(kind, part, tiny_recipe, straight, outcome, tmp_path):
    """Negative control: with one part left as it was earlier, something ends differently."""
    stage, (made, expected) = tiny_recipe.stages[kind], straight(kind)
    steps = {"train": (17, 19), "sample": (4, 12), "reward": (5, 8)}.get(kind, (2, 5))
    older, newer = (made.store(stage).folder / f"{step:08d}" for step in steps)
    changed = tmp_path / "changed"
    shutil.copytree(newer, changed)
    age(changed, older, part)
    workshop = Workshop(tmp_path / "run")
    store = workshop.store(stage)
    about = json.loads((newer / "manifest.json").read_text())["about"]

    def copy_changed(folder):
        shutil.copytree(changed, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()

    store.save(steps[1], about, copy_changed)
    found = outcome(workshop, stage)
    assert found["files"] != expected["files"] or found["numbers"] != expected["numbers"]


def test_every_part_has_its_negative_control(straight):
    for kind, parts in PARTS.items():
        state = straight(kind)[1]["state"]["state.json"]
        assert set(parts) | {"random"} == set(state), kind


def test_data_that_became_less_is_refused(tiny_recipe, tmp_path):
    stage = tiny_recipe.stages["sft"]
    workshop = Workshop(tmp_path)
    workshop.interrupt(stage, 4)
    fewer = stage.model_copy(update={"limit": 20})
    workshop.store(fewer).folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(workshop.store(stage).folder, workshop.store(fewer).folder)
    with pytest.raises(
        CheckpointError, match=r"state of batches .*made with 23 rows of data and there are 19"
    ):
        workshop.run(fewer)


@pytest.fixture(scope="module")
def with_lora(tiny_recipe):
    """`with_lora(kind)`: the stage of that kind, training adapters."""

    def of(kind: str):
        return tiny_recipe.stages[kind].model_copy(update={"lora": LoRAConfig(rank=2, alpha=4)})

    return of


@pytest.mark.parametrize(("kind", "steps"), [("sft", [4]), ("reward", [2, 7]), ("dpo", [4])])
def test_interrupted_stage_with_adapters_ends_as_one_that_was_not(
    kind, steps, with_lora, outcome, tmp_path
):
    stage = with_lora(kind)
    straight = Workshop(tmp_path / "straight")
    expected = outcome(straight, stage)
    assert "adapter/adapter_model.safetensors" in expected["files"]
    for step in steps:
        workshop = Workshop(tmp_path / str(step))
        workshop.interrupt(stage, step)
        assert outcome(workshop, stage) == expected


def numbers(path: Path) -> int:
    """How many numbers a file of tensors holds."""
    from safetensors.torch import load_file

    return sum(tensor.numel() for tensor in load_file(path).values())


@pytest.mark.parametrize(("kind", "step"), [("sft", 1), ("reward", 1)])
def test_checkpoint_with_adapters_holds_them_and_their_optimiser_alone(
    kind, step, with_lora, tmp_path
):
    stage = with_lora(kind)
    workshop = Workshop(tmp_path)
    workshop.interrupt(stage, step)
    saved = workshop.store(stage).newest(workshop.messages.append).path
    folder, _ = workshop.run(stage)
    trained = numbers(folder / "adapter" / "adapter_model.safetensors")
    found = numbers(saved / "tensors.safetensors")
    # Weights, AdamW's two moments and a step count for each of the 2 x 14 matrices (and the head);
    # the states of four generators of 5056 or 16 bytes are the rest.
    assert 3 * trained + 28 <= found <= 3 * trained + 29 + 4 * 5056
    assert trained < numbers(folder / "model" / "model.safetensors") / 5


@pytest.mark.parametrize("kind", ["sft", "reward", "train"])
def test_another_base_is_another_stage(kind, with_lora, tmp_path):
    stage = with_lora(kind)
    other = tmp_path / "lm"
    shutil.copytree(stage.model, other)
    moved = stage.model_copy(update={"model": str(other)})
    before = describe_stage(moved, SEED, References()).fingerprint
    from safetensors.torch import load_file, save_file

    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"][3] += 1e-6
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert describe_stage(moved, SEED, References()).fingerprint != before


def test_checkpoint_of_another_base_is_refused(with_lora, tiny_causal_lm, tiny_tokenizer, tmp_path):
    """As with a model on a hub that was replaced: no fingerprint covers it."""
    stage = with_lora("sft")
    workshop = Workshop(tmp_path)
    workshop.interrupt(stage, 4)
    tiny_causal_lm(seed=1).save_pretrained(tmp_path / "other")
    tiny_tokenizer.save_pretrained(tmp_path / "other")
    changed = stage.model_copy(update={"model": str(tmp_path / "other")})
    workshop.store(changed).folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(workshop.store(stage).folder, workshop.store(changed).folder)
    with pytest.raises(CheckpointError, match=r"state of model .*trained on other weights"):
        workshop.run(changed)


def test_ensemble_interrupted_in_any_member_ends_the_same(tiny_recipe, outcome, tmp_path):
    """Two members of two phases and a point of the learning curve, one after the other."""
    stage = type(tiny_recipe.stages["reward"]).model_validate(
        tiny_recipe.stages["reward"].model_dump()
        | {"ensemble": {"members": 2, "data": "folds"}, "learning_curve": [6]}
    )
    expected = outcome(Workshop(tmp_path / "straight"), stage)
    last = int(expected["files"]["metrics.jsonl"][-1]["step"])
    for step in (3, 6, 9, last):
        workshop = Workshop(tmp_path / str(step))
        workshop.interrupt(stage, step)
        assert outcome(workshop, stage) == expected
