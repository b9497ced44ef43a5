import re

import pytest

from tutelage.config import RewardStage, SFTStage, build_section, load_recipe, load_section
from tutelage.config.schema import stage_kinds
from tutelage.errors import ConfigError

RECIPE = """\
name: small
inputs:
  reviews: null
stages:
  world: {kind: helpdesk}
  sft:
    kind: sft
    model: org/model
    data: [world]
    optimizer:
      warmup: 0.1
  unguarded:
    kind: train
    model: sft
    prompts: world/rl.jsonl
    reward: {}
    ppo: {critic: {floor: 0.2}}
"""

KINDS = ", ".join(stage_kinds())


@pytest.fixture
def load(tmp_path):
    """Loads RECIPE with a text replaced by another, and with overrides."""

    def go(*overrides, replace=("", ""), text=RECIPE):
        path = tmp_path / "recipe.yaml"
        path.write_text(text.replace(*replace, 1))
        return load_recipe(path, overrides)

    return go


@pytest.fixture
def refuse(load, tmp_path):
    """The message with which a recipe is refused, the folder's name left out."""

    def go(*overrides, **how):
        with pytest.raises(ConfigError) as caught:
            load(*overrides, **how)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return go


def test_recipe_has_its_stages_in_order(load):
    recipe = load()
    assert list(recipe.stages) == ["world", "sft", "unguarded"]
    assert recipe.stages["sft"].data == ("world",)


def test_section_given_in_part_keeps_the_rest_of_its_default(load):
    recipe = load()
    assert recipe.stages["sft"].optimizer.warmup == 0.1
    assert recipe.stages["sft"].optimizer.learning_rate == 2e-5
    assert recipe.stages["unguarded"].ppo.critic.floor == 0.2
    assert recipe.stages["unguarded"].ppo.critic.learning_rate == 1e-5


def test_yaml_is_read_by_version_1_2(load):
    recipe = load(replace=("warmup: 0.1", "learning_rate: 1e-4"))
    assert recipe.stages["sft"].optimizer.learning_rate == 1e-4
    assert load("--description", "on").description == "on"


# Overrides


def test_override_names_a_stage_with_or_without_the_key_above_it(load):
    assert load("--sft.epochs", "2").stages["sft"].epochs == 2.0
    assert load("--stages.sft.epochs=2").stages["sft"].epochs == 2.0
    assert load("--seed", "3").seed == 3


def test_override_of_a_section_changes_one_key_alone(load):
    optimizer = load("--sft.optimizer.floor", "0").stages["sft"].optimizer
    assert (optimizer.floor, optimizer.warmup, optimizer.learning_rate) == (0.0, 0.1, 2e-5)


def test_override_reaches_a_section_the_recipe_does_not_mention(load):
    recipe = load("--unguarded.reward.length.coefficient", "auto", "--sft.batch.minibatch=8")
    assert recipe.stages["unguarded"].reward.length.coefficient == "auto"
    assert recipe.stages["sft"].batch.minibatch == 8


def test_override_may_be_written_with_dashes(load):
    assert load("--sft.batch.microbatch-tokens", "99").stages["sft"].batch.microbatch_tokens == 99


def test_override_of_one_stage_leaves_those_that_share_its_settings(load):
    """YAML's `*name` repeats what `&name` marks; the two are no single thing."""
    text = RECIPE.replace("world: {", "world: &same {") + "  other: *same\n"
    recipe = load("--world.train_prompts", "7", text=text)
    default = recipe.stages["other"].train_prompts
    assert recipe.stages["world"].train_prompts == 7 != default


@pytest.mark.parametrize(
    "tokens",
    [
        ["--inputs.reviews", "a.gz,b.gz"],
        ["--inputs.reviews", "a.gz", "b.gz"],
        ["--inputs.reviews", "a.gz", "--inputs.reviews", "b.gz"],
        ["--inputs.reviews=a.gz", "--inputs.reviews=b.gz"],
        ["--inputs.reviews", "[a.gz, b.gz]"],
    ],
)
def test_several_files_may_be_given_in_every_way(load, tokens):
    assert load(*tokens).inputs["reviews"] == ("a.gz", "b.gz")


def test_text_is_not_read_as_a_number(load):
    assert load("--name", "12").name == "12"
    assert load("--sft.model", "1e5").stages["sft"].model == "1e5"
    assert load("--unguarded.probes", "null").stages["unguarded"].probes is None


def test_number_below_zero_is_a_value(load):
    assert (
        load("--unguarded.ppo.truncation.value", "-2.5").stages["unguarded"].ppo.truncation.value
        == -2.5
    )


# What is refused


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (
            ("warmup: 0.1", "warmpu: 0.1"),
            "recipe.yaml:11: stages.sft.optimizer.warmpu: unknown key (found 0.1). "
            "Did you mean 'warmup'? Allowed: algorithm, learning_rate, schedule, floor, warmup, "
            "weight_decay, beta1, beta2, epsilon, max_gradient_norm",
        ),
        (
            ("warmup: 0.1", "warmup: 1.5"),
            "recipe.yaml:11: stages.sft.optimizer.warmup: found 1.5, "
            "allowed: a number of at least 0.0 and of at most 1.0",
        ),
        (
            ("warmup: 0.1", "schedule: cosin"),
            "recipe.yaml:11: stages.sft.optimizer.schedule: found 'cosin', "
            "allowed: one of 'cosine', 'linear', 'constant'. Did you mean 'cosine'?",
        ),
        (
            ("    model: org/model\n", ""),
            "recipe.yaml:6: stages.sft.model: missing; needed: a reference",
        ),
        (
            ("data: [world]", "data: world"),
            "recipe.yaml:9: stages.sft.data: found 'world', allowed: a list, each item a reference",
        ),
        (
            ("kind: sft", "kind: stf"),
            "recipe.yaml:7: stages.sft.kind: found 'stf', allowed: one of "
            f"{KINDS}. Did you mean 'sft'?",
        ),
        (
            ("    kind: sft\n", ""),
            f"recipe.yaml:6: stages.sft.kind: missing; needed: one of {KINDS}",
        ),
        (
            ("{critic: {floor: 0.2}}", "{dual_clip: 0.5}"),
            "recipe.yaml:17: stages.unguarded.ppo.dual_clip: found 0.5, "
            "allowed: a number above 1.0 or null",
        ),
        (
            ("reward: {}", "reward: {length: {coefficient: high}}"),
            "recipe.yaml:16: stages.unguarded.reward.length.coefficient: found 'high', "
            "allowed: a number of at least 0 or 'auto'",
        ),
        (
            ("{critic: {floor: 0.2}}", "{critic_warmup: 100}"),
            "recipe.yaml:17: stages.unguarded.ppo: critic_warmup is 100 of 100 steps: "
            "the policy would never be trained",
        ),
        (
            ("data: [world]", "data: [inputs/review]"),
            "recipe.yaml: stages.sft refers to 'inputs/review', but inputs has only ['reviews']",
        ),
        (
            ("model: org/model", "model: unguarded"),
            "recipe.yaml: stages.sft refers to 'unguarded', which is not above it: "
            "move stages.unguarded up",
        ),
        (
            ("  sft:\n", "  SFT:\n"),
            "recipe.yaml:6: stages.SFT: the name 'SFT' is not allowed: begin with a small letter; "
            "small letters, digits and _ may follow",
        ),
    ],
)
def test_fault_names_file_line_key_value_and_what_is_allowed(refuse, replace, message):
    assert refuse(replace=replace) == message


def test_key_of_an_inner_section_is_suggested_with_its_path(refuse):
    message = refuse(replace=("optimizer:", "learning_rate: 1e-4\n    optimizer:"))
    assert "stages.sft.learning_rate: unknown key" in message
    assert "Did you mean 'optimizer.learning_rate'?" in message


def test_all_faults_are_listed_in_the_order_of_the_file(refuse):
    text = RECIPE.replace("warmup", "warmpu").replace("name: small", "name: '?'\nsede: 1")
    lines = refuse(text=text.replace("{kind: helpdesk}", "{kind: helpdesk, preset: giant}")).split(
        "\n"
    )
    assert [line.partition(": ")[2].partition(":")[0] for line in lines] == [
        "name",
        "sede",
        "stages.world.preset",
        "stages.sft.optimizer.warmpu",
    ]


def test_list_with_wrong_items_is_not_called_too_short(refuse):
    stage = "  rm: {kind: reward, model: org/m, phases: [{preferences: 3}]}\n"
    assert refuse(text=RECIPE + stage) == (
        "recipe.yaml:18: stages.rm.phases.0.preferences: found 3, "
        "allowed: a list, each item a reference"
    )
    assert "phases: found [], allowed: a list of at least 1" in refuse(
        text=RECIPE + stage.replace("[{preferences: 3}]", "[]")
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", 'recipe.yaml:2: not valid YAML: .*found duplicate key "name"'),
        ("name: [a\nstages: {}\n", "recipe.yaml:2: not valid YAML: while parsing a flow sequence"),
        ("name: 'a\n", "recipe.yaml:2: not valid YAML: while scanning a quoted scalar"),
        ("name: !!python/object:os.system x\n", "recipe.yaml:1: not valid YAML"),
        ("name: \0\n", "recipe.yaml: not valid YAML"),
        ("name: &a [*a]\n", "recipe.yaml: an alias .* stands inside what it names"),
        ("", "recipe.yaml: found nothing, expected keys with values"),
        ("- a\n- b\n", "recipe.yaml: found a list, expected keys with values"),
    ],
)
def test_text_that_is_no_recipe_is_refused_by_line(load, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(text=text)
    assert "\n" not in str(caught.value)


def test_missing_file_suggests_the_nearest(tmp_path):
    (tmp_path / "quickstart.yaml").write_text(RECIPE)
    with pytest.raises(ConfigError, match=r"does not exist\. Did you mean .*quickstart\.yaml\?"):
        load_recipe(tmp_path / "quikstart.yaml")


def test_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--ppo.clip", "0.1"], "'ppo' is neither a stage .* Did you mean --unguarded.ppo.clip?"),
        (["--stf.epochs", "2"], "Did you mean --sft.epochs?"),
        (["--sft.epoch", "2"], "--sft.epoch: stages.sft.epoch: unknown key .* mean 'epochs'"),
        (["--sft.epochs", "two"], "--sft.epochs: stages.sft.epochs: found 'two', allowed: a num"),
        (["--sft.epochs"], "--sft.epochs has no value: write --sft.epochs VALUE"),
        (["--sft.epochs", "1", "2"], r"--sft.epochs: found 2 values \(1 2\), one is allowed"),
        (["2"], "found '2', expected an option before it"),
        (["--inputs.review", "a"], "no such input, it has: reviews. Did you mean --inputs.reviews"),
        (["--sft.model.x", "a"], "--sft.model.x: stages.sft.model is 'org/model', nothing can be"),
        (["--sft.epochs", "[1"], r"'\[1' is not a YAML value"),
        (["--seed", "1", "--seed", "2"], "--seed: found 2 values"),
    ],
)
def test_wrong_override_is_refused_by_its_option(refuse, tokens, message):
    assert re.search(message, refuse(*tokens))


# Sections on their own


def test_section_is_read_from_file_and_options_win(tmp_path):
    file = tmp_path / "sft.yaml"
    file.write_text("model: org/a\ndata: [x]\nepochs: 3\n")
    stage = load_section(SFTStage, file, {("epochs",): 2.0, ("optimizer", "floor"): 0.0})
    assert (stage.model, stage.epochs, stage.optimizer.floor) == ("org/a", 2.0, 0.0)


def test_fault_in_a_section_names_file_or_option(tmp_path):
    file = tmp_path / "sft.yaml"
    file.write_text("model: org/a\ndata: [x]\nepochs: none\n")
    with pytest.raises(ConfigError) as caught:
        load_section(SFTStage, file, {("max_length",): 0})
    assert str(caught.value).replace(f"{tmp_path}/", "") == (
        "--max-length: max_length: found 0, allowed: an integer above 0\n"
        "sft.yaml:3: epochs: found 'none', allowed: a number above 0"
    )


def test_list_of_sections_is_filled_position_by_position():
    stage = load_section(
        RewardStage,
        None,
        {
            ("model",): "org/m",
            ("phases", 0, "preferences"): ["a"],
            ("phases", 1, "preferences"): ["b"],
            ("phases", 1, "optimizer", "floor"): 0.5,
        },
    )
    assert [phase.preferences for phase in stage.phases] == [("a",), ("b",)]
    assert stage.phases[1].optimizer.learning_rate == 1e-5
    with pytest.raises(ConfigError, match=r"--phases\.1\.limit: the list has 0 items"):
        load_section(RewardStage, None, {("phases", 1, "limit"): 3})


def test_values_given_in_python_are_explained_the_same_way():
    with pytest.raises(ConfigError, match=r"epoch: unknown key .* Did you mean 'epochs'"):
        build_section(SFTStage, {"model": "m", "data": ["x"], "epoch": 3})
