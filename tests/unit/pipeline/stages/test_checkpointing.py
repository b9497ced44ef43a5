"""Stages do what `batch.gradient_checkpointing` asks, and learn the same."""

import importlib
import json
import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

SHORT = {
    "sft": {"epochs": 0.4},
    "reward": {},
    "dpo": {"epochs": 0.4},
    "train": {"probes": None},
}


@pytest.mark.parametrize("kind", SHORT)
def test_stage_computes_more_and_learns_the_same(kind, tiny_recipe, context):
    def outcome(checkpointing: bool):
        settings = tiny_recipe.stages[kind].model_dump() | SHORT[kind]
        if kind == "train":
            settings["ppo"] |= {"steps": 1, "prompts_per_step": 2, "critic_warmup": 0}
        batch = settings["ppo"]["batch"] if kind == "train" else settings["batch"]
        batch["gradient_checkpointing"] = checkpointing
        stage = type(tiny_recipe.stages[kind]).model_validate(settings)
        torch.manual_seed(0)
        random.seed(0)
        module = importlib.import_module(f"tutelage.pipeline.stages.{kind}")
        with FlopCounterMode(display=False) as counter:
            numbers = module.run(stage, context())
        return numbers, counter.get_total_flops()

    (plain, work), (again, more) = outcome(False), outcome(True)
    assert json.dumps(again) == json.dumps(plain)
    assert more > 1.1 * work
