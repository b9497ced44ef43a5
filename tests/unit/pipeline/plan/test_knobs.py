import shlex
from copy import deepcopy

import pytest

from tutelage.config import load_recipe
from tutelage.config.document import to_yaml
from tutelage.pipeline.plan.devices import Device
from tutelage.pipeline.plan.recipe import recipe_references
from tutelage.pipeline.plan.verdict import judge

MB = 10**6


@pytest.fixture
def recipe(config_only, recipe_of, tmp_path):
    """A file with two PPO stages that may run side by side."""
    folder = config_only(hidden_size=128, intermediate_size=384, vocab_size=8000)
    stage = {
        "kind": "train",
        "model": folder,
        "prompts": "p.jsonl",
        "reward": {},
        "ppo": {"batch": {"minibatch": 32}, "sampling": {"max_tokens": 64}},
    }
    text = to_yaml(
        {"name": "x", "threads": 2, "parallel": 2, "stages": {"a": stage, "b": deepcopy(stage)}}
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def judged(recipe, memory: int):
    device = Device("cpu", "cpu", memory, None)
    return judge(recipe, recipe_references(recipe), tuple(recipe.stages), device)


def test_recipe_that_fits_gets_no_advice(recipe):
    verdict = judged(load_recipe(recipe), 1 << 40)
    assert verdict.fits
    assert not verdict.advice.knobs


def test_knobs_are_ordered_by_what_they_save(recipe):
    verdict = judged(load_recipe(recipe), 1)
    saved = [knob.saved for knob in verdict.advice.knobs]
    assert not verdict.fits
    assert len(saved) > 3
    assert saved == sorted(saved, reverse=True)
    assert all(knob.peak + knob.saved == verdict.plan.peak for knob in verdict.advice.knobs)


def test_every_knob_does_what_it_promises(recipe):
    verdict = judged(load_recipe(recipe), 1)
    for knob in verdict.advice.knobs:
        turned = load_recipe(recipe, shlex.split(knob.option))
        assert judged(turned, 1).plan.peak == knob.peak, knob.option


def test_one_stage_at_a_time_is_among_them(recipe):
    options = {knob.option for knob in judged(load_recipe(recipe), 1).advice.knobs}
    assert "--parallel 1" in options
    assert "--a.critic_trunk shared" in options
    assert any(option.startswith("--b.ppo.batch.microbatch_tokens") for option in options)


def test_gentlest_value_that_fits_is_proposed(recipe):
    whole = judged(load_recipe(recipe), 1)
    gentlest = load_recipe(recipe, ["--a.ppo.batch.head_tokens", "1024"])
    enough = judged(gentlest, 1).plan.peak
    assert enough < whole.plan.peak
    knobs = {knob.option: knob for knob in judged(load_recipe(recipe), enough).advice.knobs}
    assert knobs["--a.ppo.batch.head_tokens 1024"].peak == enough


def test_all_knobs_together_save_more_than_any(recipe):
    advice = judged(load_recipe(recipe), 1).advice
    options = [option for knob in advice.knobs for option in shlex.split(knob.option)]
    assert judged(load_recipe(recipe, options), 1).plan.peak == advice.peak
    assert advice.peak < min(knob.peak for knob in advice.knobs)
