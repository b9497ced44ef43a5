import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tutelage.config import Recipe, load_recipe
from tutelage.errors import ConfigError, DataError, ModelError
from tutelage.pipeline.plan.devices import Device, Pace, Rates
from tutelage.pipeline.plan.recipe import (
    model_sizes,
    per_device,
    recipe_references,
    side_by_side,
)
from tutelage.pipeline.plan.verdict import judge

ROOT = Path(__file__).resolve().parents[4]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
GIB = 1 << 30


def judged(recipe, memory=8 * GIB, **options):
    device = Device("cpu", "cpu", memory, None)
    return judge(recipe, recipe_references(recipe), tuple(recipe.stages), device, **options)


def stage_of(recipe, name):
    return next(stage for stage in judged(recipe).plan.stages if stage.name == name)


def roles(stage) -> dict:
    return {model.role: model for model in stage.models}


TRAIN = {"prompts": "prompts.jsonl", "reward": {}, "ppo": {"batch": {"minibatch": 8}}}


@pytest.fixture
def ppo(config_only, recipe_of):
    """A PPO recipe of a small untied Llama: `ppo(critic_trunk="shared")`."""
    folder = config_only()

    def build(ppo=(), **settings):
        merged = {**TRAIN["ppo"], **dict(ppo)}
        return recipe_of(train={**TRAIN, "model": folder, **settings, "ppo": merged})

    return build


# Shipped recipes


MODELS_TO_NAME = {"reward-models": "encoder", "rlvr-gsm8k": "model"}
"""Shipped recipe -> the input that is a model of the user's own."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipe_fits_a_small_laptop(path, config_only):
    named = MODELS_TO_NAME.get(path.stem)
    given = [f"--inputs.{named}", config_only()] if named else []
    recipe = load_recipe(path, ["--threads", "4", "--parallel", "2", *given])
    verdict = judged(recipe, 8 * GIB)
    assert verdict.fits
    planned = {stage.name for stage in verdict.plan.stages}
    kinds = {"pretrain", "sft", "sample", "reward", "dpo", "choose", "select", "train", "evaluate"}
    assert planned == {n for n, stage in recipe.stages.items() if stage.kind in kinds}


@pytest.mark.parametrize(("name", "model"), MODELS_TO_NAME.items())
def test_recipe_whose_model_is_the_users_says_how_to_name_it(name, model):
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    with pytest.raises(ConfigError, match=rf"--inputs\.{model} FOLDER"):
        judged(recipe)


def test_inputs_that_are_no_models_need_not_be_given():
    recipe = load_recipe(ROOT / "recipes" / "hh.yaml")
    assert recipe.inputs["preferences"] is None
    assert judged(recipe).plan.peak > 0


# References


def test_model_is_followed_to_the_stage_that_makes_it():
    recipe = load_recipe(ROOT / "recipes" / "quickstart.yaml")
    sizes = model_sizes(recipe, recipe_references(recipe), ["guarded"])
    assert {size.source for size in sizes.values()} == {"base"}
    assert set(sizes) == {"sft", "reward_hybrid"}


def test_folder_is_counted_once_for_all_stages(config_only, recipe_of):
    folder = config_only()
    recipe = recipe_of(
        sft={"model": folder, "data": ["d"]}, sample={"model": "sft", "prompts": "p"}
    )
    sizes = model_sizes(recipe, recipe_references(recipe), ["sft", "sample"])
    assert sizes["sft"] is not None
    assert sizes["sft"] == sizes[folder]


def test_model_among_the_inputs_must_be_given():
    stage = {"kind": "sft", "model": "inputs/base", "data": ["d"]}
    recipe = Recipe.model_validate({"name": "x", "inputs": {"base": None}, "stages": {"a": stage}})
    with pytest.raises(ConfigError, match=r"not known: add --inputs\.base FOLDER"):
        judged(recipe)


def test_stage_that_makes_no_model_is_named():
    stages = {
        "world": {"kind": "helpdesk"},
        "a": {"kind": "sft", "model": "world", "data": ["d"]},
    }
    recipe = Recipe.model_validate({"name": "x", "stages": stages})
    with pytest.raises(ConfigError, match="stage world is of kind helpdesk, which makes none"):
        judged(recipe)


def test_unknown_model_is_refused(recipe_of, tmp_path):
    with pytest.raises(ModelError, match="the size of org/unknown is not known"):
        judged(recipe_of(sft={"model": "org/unknown", "data": ["d"]}))
    with pytest.raises(DataError, match="does not exist"):
        judged(recipe_of(sft={"model": str(tmp_path / "no" / "such"), "data": ["d"]}))


# What a stage keeps


def test_ppo_keeps_four_models_and_two_optimisers(ppo):
    # 3 x (2 x 64 x 64 + 2 x 64 x 32 + 3 x 64 x 160 + 2 x 64) + 64 below the head, by hand.
    backbone = 3 * (8192 + 4096 + 30720 + 128) + 64 + 1000 * 64
    stage = stage_of(ppo(), "train")
    models = roles(stage)
    assert models["policy"].weights == 4 * (backbone + 64_000)
    assert models["policy"].optimiser == 8 * (backbone + 64_000)
    assert models["policy"].decoder == 4 * (3 * (8192 + 4096 + 30720) + 64_000)
    assert models["reference"].kept == 4 * (backbone + 64_000)
    assert models["critic"].gradients == 4 * (backbone + 65)
    assert "reward model" not in models


def test_reward_model_is_one_more(ppo, config_only):
    models = roles(stage_of(ppo(reward={"model": config_only(hidden_size=32)}), "train"))
    assert models["reward model"].optimiser == 0
    assert models["reward model"].weights < models["reference"].weights


def test_members_of_an_ensemble_are_models_more_and_score_every_round(ppo, config_only):
    large, small = config_only(), config_only(hidden_size=32)
    one = stage_of(ppo(reward={"model": large}), "train")
    listed = {"model": large, "ensemble": {"models": [large, small, small]}}
    stage = stage_of(ppo(reward=listed), "train")
    assert roles(stage)["members"].weights == sum(
        roles(stage_of(ppo(reward={"model": folder}), "train"))["reward model"].weights
        for folder in (large, small, small)
    )
    assert stage.kept - one.kept == roles(stage)["members"].weights
    lone = stage_of(ppo(), "train")
    flops = [sum(part.flops for part in each.work) for each in (lone, one, stage)]
    assert flops[2] - flops[0] > 1.5 * (flops[1] - flops[0])


def test_members_are_those_of_the_reward_models_stage(recipe_of, config_only):
    folder = config_only()
    reward = {
        "model": folder,
        "phases": [{"preferences": ["d"]}],
        "ensemble": {"members": 3},
    }
    train = {**TRAIN, "model": folder, "reward": {"model": "reward", "ensemble": {}}}
    found = roles(stage_of(recipe_of(reward=reward, train=train), "train"))
    assert found["members"].weights == 3 * found["reward model"].weights


def test_members_in_a_folder_are_counted(ppo, config_only, tmp_path):
    stage = tmp_path / "rm"
    stage.mkdir()
    Path(config_only()).rename(stage / "model")
    for number in range(2):
        (stage / "members" / str(number)).mkdir(parents=True)
    found = roles(stage_of(ppo(reward={"model": str(stage / "model"), "ensemble": {}}), "train"))
    assert found["members"].weights == 2 * found["reward model"].weights


def test_held_out_reward_models_of_a_guard_are_kept_too(ppo, config_only):
    small = config_only(hidden_size=32)
    probed = {"probes": "probes.jsonl", "reward": {"model": config_only()}}
    watched = {"signals": {"second": {"model": small}, "rule": {"function": "rule.py:one"}}}
    alone = stage_of(ppo(**probed), "train")
    guarded = stage_of(ppo(**probed, guard=watched), "train")
    second = roles(guarded)["held-out signals"]
    assert second.weights == guarded.kept - alone.kept > 0
    flops = [sum(part.flops for part in each.work) for each in (alone, guarded)]
    assert flops[0] < flops[1] < 1.1 * flops[0]


def test_answers_of_the_reference_are_no_model(ppo, recipe_of, config_only):
    folder = config_only()
    reward = {"model": folder, "shape": "par", "reference_answers": "sample"}
    recipe = recipe_of(
        sample={"model": folder, "prompts": "p"},
        train={**TRAIN, "model": folder, "reward": reward},
    )
    assert set(roles(stage_of(recipe, "train"))) >= {"policy", "reward model"}


def test_shared_trunk_leaves_the_critic_a_head(ppo):
    own, shared = stage_of(ppo(), "train"), stage_of(ppo(critic_trunk="shared"), "train")
    assert roles(shared)["critic"].parameters == 65
    assert shared.kept < own.kept
    assert shared.largest.bytes <= own.largest.bytes


LEARNERS = {
    "grpo": "grpo",
    "rloo": "rloo",
    "reinforce": "reinforce",
    "reinforce++": "reinforce_pp",
    "online_dpo": "online_dpo",
}


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_learner_without_a_critic_keeps_none(ppo, config_only, recipe_of, algorithm):
    rows = {
        "prompts_per_step": 16,
        "sampling": {"samples_per_prompt": 4},
        "batch": {"minibatch": 64},
        "policy": {"algorithm": "adafactor"},
    }
    own = {**rows, "kl": {"estimator": "k2"}} if algorithm == "grpo" else rows
    own = own if algorithm == "reinforce" else {**own, "epochs": 1}
    if algorithm == "online_dpo":
        # A pair is two of four completions: twice the passes make as many rows.
        own = {**own, "epochs": 2, "batch": {"minibatch": 16}}
    settings = {"prompts": "prompts.jsonl", "reward": {}, "model": config_only()}
    stage = stage_of(
        recipe_of(train={**settings, "algorithm": algorithm, LEARNERS[algorithm]: own}), "train"
    )
    with_critic = stage_of(ppo({**rows, "epochs": 1}), "train")
    assert set(roles(stage)) == {"policy", "reference"}
    critic = roles(with_critic)["critic"]
    assert with_critic.kept - stage.kept == critic.kept
    assert with_critic.largest.bytes >= stage.largest.bytes
    # Sampling and the policy's own passes are the same, the critic's are missing.
    flops = [sum(part.flops for part in each.work) for each in (stage, with_critic)]
    assert 0.5 * flops[1] < flops[0] < 0.9 * flops[1]


def test_full_divergence_needs_the_logits_of_the_reference(config_only, recipe_of):
    folder = config_only(vocab_size=30_000)

    def update(estimator: str) -> int:
        settings = {"prompts": "prompts.jsonl", "reward": {}, "model": folder}
        grpo = {"kl": {"estimator": estimator}}
        stage = stage_of(recipe_of(train={**settings, "algorithm": "grpo", "grpo": grpo}), "train")
        return stage.largest.bytes

    assert update("full") > update("k3") == update("k2")


def test_frozen_blocks_are_shared_with_the_reference(ppo):
    models = roles(stage_of(ppo({"frozen_layers": 2}), "train"))
    block = 8192 + 4096 + 30720
    assert models["reference"].parameters == pytest.approx(block + 64_000, rel=0.01)
    assert models["policy"].gradients == models["reference"].weights


@pytest.mark.parametrize(("algorithm", "bytes_each"), [("adamw8bit", 2), ("adafactor", 0)])
def test_optimiser_is_that_of_the_recipe(ppo, algorithm, bytes_each):
    models = roles(stage_of(ppo({"policy": {"algorithm": algorithm}}), "train"))
    assert models["policy"].optimiser == bytes_each * models["policy"].parameters
    assert models["critic"].optimiser == 8 * models["critic"].parameters


def test_probes_decode_from_a_copy_of_their_own(ppo):
    without, with_probes = stage_of(ppo(), "train"), stage_of(ppo(probes="p.jsonl"), "train")
    assert roles(with_probes)["policy"].decoder == 2 * roles(without)["policy"].decoder


def phase(stage, name: str) -> int:
    return next(phase.bytes for phase in stage.phases if phase.name == name)


def test_smaller_batches_need_less(ppo):
    batch = {"minibatch": 8, "microbatch_tokens": 4096, "head_tokens": 64}
    smaller = {**batch, "microbatch_tokens": 512}
    again = {**batch, "gradient_checkpointing": True}
    chunked = {**batch, "head_tokens": 16}
    whole = phase(stage_of(ppo({"batch": batch}), "train"), "update")
    for changed in (smaller, again, chunked):
        assert phase(stage_of(ppo({"batch": changed}), "train"), "update") < whole


def test_cache_grows_with_the_rows_that_are_decoded(ppo):
    few = {"sampling": {"batch_size": 8}}
    assert phase(stage_of(ppo(few), "train"), "rollout") < phase(
        stage_of(ppo(), "train"), "rollout"
    )


def test_sequences_are_no_longer_than_the_model_reads(config_only, recipe_of):
    short = recipe_of(sft={"model": config_only(), "data": ["d"], "max_length": 256})
    longer = recipe_of(sft={"model": config_only(), "data": ["d"], "max_length": 4096})
    assert stage_of(short, "sft").peak == stage_of(longer, "sft").peak


def test_number_of_updates_is_known_where_the_recipe_tells(config_only, recipe_of, ppo):
    data = {"model": config_only(), "data": ["d"], "batch": {"minibatch": 10}}
    assert stage_of(ppo({"steps": 7}), "train").units == 7
    assert stage_of(recipe_of(sft=data), "sft").units is None
    # 5 of 100 are held out; 2 x 95 / 10.
    assert stage_of(recipe_of(sft={**data, "limit": 100, "epochs": 2}), "sft").units == 19
    pairs = {"model": data["model"], "preferences": ["d"], "batch": {"minibatch": 10}}
    assert stage_of(recipe_of(dpo=pairs), "dpo").units is None
    assert stage_of(recipe_of(dpo={**pairs, "limit": 100, "epochs": 2}), "dpo").units == 19


def test_two_answers_of_a_pair_are_read_at_a_time(config_only, recipe_of):
    """A pair of answers of 64 tokens takes what a conversation of 128 does."""
    model, batch = config_only(), {"minibatch": 4}
    dpo = {"model": model, "preferences": ["d"], "batch": batch, "max_length": 64}
    sft = {"model": model, "data": ["d"], "batch": batch, "max_length": 128}
    assert stage_of(recipe_of(dpo=dpo), "dpo").peak == stage_of(recipe_of(sft=sft), "sft").peak


def test_selecting_loads_the_reward_model_alone(config_only, recipe_of):
    recipe = recipe_of(select={"samples": "s", "reward": config_only()})
    (model,) = stage_of(recipe, "select").models
    assert (model.role, model.gradients) == ("reward model", 0)


@pytest.mark.parametrize("kind", ["revise", "prefer"])
def test_model_that_writes_is_planned_and_rules_are_not(config_only, recipe_of, kind):
    given = {"constitution": "legal", "samples": "s", "max_prompt_tokens": 64}
    model = config_only()
    recipe = recipe_of(**{kind: {**given, "model": model, "sampling": {"max_tokens": 32}}})
    asked = {"model": model, "prompts": "p", "max_prompt_tokens": 64}
    sample = recipe_of(sample={**asked, "sampling": {"max_tokens": 32, "samples_per_prompt": 1}})
    assert stage_of(recipe, kind).peak == stage_of(sample, "sample").peak
    rules = recipe_of(**{kind: {**given, "writer": "helpdesk"}})
    assert judged(rules).plan.stages == ()


# Side by side


def chain(**needs: list[str]) -> Recipe:
    stages = {
        n: {"kind": "sft", "model": "m", "data": reads or ["texts.jsonl"]}
        for n, reads in needs.items()
    }
    return Recipe.model_validate({"name": "x", "stages": stages})


def test_only_stages_that_do_not_need_each_other_run_together():
    recipe = chain(a=[], b=["a"], c=["a"], d=["b", "c"])
    peaks = {"a": 5, "b": 3, "c": 4, "d": 6}
    assert side_by_side(recipe, peaks, 2) == ("b", "c")
    assert side_by_side(recipe, peaks, 1) == ("d",)


@pytest.mark.parametrize("seed", range(20))
def test_largest_set_is_that_of_trying_all(seed):
    source = random.Random(seed)
    names = "abcdefg"
    needs = {n: [o for o in names[:i] if source.random() < 0.3] for i, n in enumerate(names)}
    recipe = chain(**needs)
    peaks = {name: source.randint(1, 9) for name in names}
    parallel = source.randint(1, 4)
    ancestors: dict[str, set[str]] = {}
    for name in names:
        ancestors[name] = set(needs[name]).union(*(ancestors[other] for other in needs[name]))
    best = max(
        sum(peaks[name] for name in chosen)
        for count in range(1, parallel + 1)
        for chosen in itertools.combinations(names, count)
        if not any(a in ancestors[b] for a in chosen for b in chosen)
    )
    assert sum(peaks[name] for name in side_by_side(recipe, peaks, parallel)) == best


# Several devices


def test_replicas_share_the_rows_and_not_the_weights(ppo):
    recipe = ppo({"prompts_per_step": 64, "batch": {"minibatch": 64}})
    one, eight = judged(recipe), judged(recipe, gpus=8)
    shared = per_device(recipe, 8).stages["train"].ppo
    assert (shared.prompts_per_step, shared.batch.minibatch) == (8, 8)
    assert eight.plan.stages[0].kept == one.plan.stages[0].kept
    work = [sum(part.flops for part in verdict.plan.stages[0].work) for verdict in (one, eight)]
    # All but the optimiser's step, which is not shared.
    assert work[1] == pytest.approx(work[0] / 8, rel=0.01)


def test_replicas_of_a_learner_without_a_critic_share_the_rows(config_only, recipe_of):
    train = {"prompts": "prompts.jsonl", "reward": {}, "model": config_only(), "algorithm": "grpo"}
    shared = per_device(recipe_of(train=train), 4).stages["train"].learner
    assert (shared.prompts_per_step, shared.batch.minibatch) == (4, 16)


# Times


def test_quickstart_takes_about_as_long_as_it_was_measured_to():
    recipe = load_recipe(ROOT / "recipes" / "quickstart.yaml", ["--threads", "2"])
    # Two cores of an EPYC 9004, whose pace was measured with this model.
    device = Device("cpu", "cpu", 8 * GIB, Rates(200e9, 420e9, 25e9))
    verdict = judge(recipe, recipe_references(recipe), tuple(recipe.stages), device)
    paces = {stage.size: Pace(0.48, 0.00046) for stage in verdict.plan.stages}
    verdict = replace(verdict, paces=paces)
    took = {stage.name: verdict.stage_seconds(stage) for stage in verdict.plan.stages}
    measured = {
        ("base",): 38,
        ("sft",): 41,
        ("samples",): 24,
        ("reward_people", "reward_hybrid"): 75,
        ("unguarded", "guarded"): 109,
        ("evaluation",): 14,
    }
    for names, seconds in measured.items():
        # An estimate that is off by half again still tells minutes from hours.
        assert 1 / 1.5 < max(took[name] for name in names) / seconds < 1.5, names
    assert 4 * 60 < verdict.all_seconds() < 6 * 60


def test_typical_rows_take_less_time_than_the_longest():
    recipe = load_recipe(ROOT / "recipes" / "quickstart.yaml", ["--threads", "2"])
    device = Device("cpu", "cpu", 8 * GIB, Rates(200e9, 420e9, 25e9))
    verdict = judge(recipe, recipe_references(recipe), tuple(recipe.stages), device)
    for stage in verdict.plan.stages:
        assert verdict.stage_seconds(stage) < verdict.stage_seconds(stage, longest=True)
    assert verdict.all_seconds() < verdict.all_seconds(longest=True)


def test_lengths_of_the_data_are_read_where_it_is(config_only, recipe_of, tmp_path):
    device = Device("cpu", "cpu", 8 * GIB, Rates(200e9, 420e9, 25e9))

    def took(characters):
        data = tmp_path / f"{characters}.jsonl"
        told = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "a" * characters},
        ]
        data.write_text((json.dumps({"id": "0", "messages": told}) + "\n") * 100)
        recipe = recipe_of(sft={"model": config_only(), "data": [str(data)], "max_length": 256})
        (stage,) = judge(recipe, recipe_references(recipe), ["sft"], device).plan.stages
        # 5 of 100 are held out, 64 a step.
        assert stage.units == 2
        return sum(part.flops for part in stage.typical), sum(part.flops for part in stage.work)

    short, long = took(33), took(330)
    assert short[0] < 0.2 * long[0]
    assert short[1] == long[1]


def test_nothing_is_said_of_data_that_is_not_there(recipe_of, config_only):
    recipe = recipe_of(sft={"model": config_only(), "data": ["not/there.jsonl"]})
    device = Device("cpu", "cpu", 8 * GIB, Rates(200e9, 420e9, 25e9))
    verdict = judge(recipe, recipe_references(recipe), ["sft"], device)
    (stage,) = verdict.plan.stages
    assert verdict.unit_seconds(stage) > 0
    assert verdict.stage_seconds(stage) is None
    assert verdict.all_seconds() is None
