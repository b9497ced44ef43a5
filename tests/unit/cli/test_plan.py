import json

import pytest

from tutelage.cli.main import main

RECIPE = """\
name: small
threads: 2
stages:
  base:
    kind: pretrain
    data: [texts.jsonl]
    model: {hidden_size: 64, layers: 2, heads: 2, mlp_size: 128, vocabulary: 500}
    steps: 10
  ppo: {kind: train, model: base, prompts: prompts.jsonl, reward: {}}
"""


@pytest.fixture
def recipe(tmp_path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture
def plan(capsys, recipe):
    """The exit code and the JSON of `tutelage plan`."""

    def run(*options: str):
        code = main(["plan", recipe, "--json", *options])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_help_answers(capsys):
    assert main(["plan", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Example: tutelage plan recipes/quickstart.yaml --device h200" in shown


def test_table_names_models_phases_and_the_verdict(capsys, recipe):
    assert main(["plan", recipe, "--device", "h100"]) == 0
    shown = capsys.readouterr().out
    for word in ("reference", "critic", "KV cache", "Optimiser", "available 80 GB on h100: fits"):
        assert word in shown
    assert "estimates" in shown
    assert "50% of their limit elsewhere" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 120


def test_json_adds_up(plan):
    code, row = plan("--device", "h200")
    assert code == 0
    assert row["fits"]
    ppo = row["stages"][1]
    kept = sum(m["weights"] + m["optimiser"] + m["decoder"] for m in ppo["models"])
    largest = max(phase["bytes"] for phase in ppo["phases"])
    assert ppo["peak"] == ppo["process"] + kept + largest
    assert row["peak"] == max(stage["peak"] for stage in row["stages"])
    assert row["stages"][0]["units"] == row["stages"][0]["units_at_most"] == 10
    assert row["stages"][0]["seconds"] > 10 * row["stages"][0]["seconds_per_unit"]
    assert all(stage["seconds_at_most"] >= stage["seconds"] for stage in row["stages"])
    assert all(stage["seconds_per_unit"] > 0 for stage in row["stages"])


def test_faster_device_takes_less_time(plan):
    (_, slow), (_, fast) = plan("--device", "l4"), plan("--device", "h200")
    assert fast["stages"][1]["seconds_per_unit"] < slow["stages"][1]["seconds_per_unit"]
    assert fast["peak"] == slow["peak"]


def test_this_machine_is_measured(plan):
    code, row = plan()
    assert code == 0
    assert row["device"]["measured"]
    assert row["device"]["rates"]["float32"] > 1e8


def test_recipe_that_does_not_fit_has_exit_code_2_and_advice(capsys, recipe):
    wide = ["--base.model.hidden_size", "16384", "--base.model.mlp_size", "65536"]
    assert main(["plan", recipe, "--device", "h100", *wide]) == 2
    shown = capsys.readouterr().out
    assert "does not fit" in shown
    assert "--ppo.critic_trunk shared" in shown


def test_options_change_the_plan(plan):
    (_, whole), (_, shared) = (
        plan("--device", "l4"),
        plan("--device", "l4", "--ppo.critic_trunk", "shared"),
    )
    assert shared["peak"] < whole["peak"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "h20"], "--device h20: not known. Did you mean 'h200'?"),
        (["--gpus", "8"], "--gpus 8 needs --device"),
        (["--gpus", "0", "--device", "l4"], "--gpus 0: expected 1 or more"),
        (["--ppo.ppo.clp", "1"], "Did you mean 'clip'?"),
    ],
)
def test_wrong_options_are_refused(capsys, recipe, options, message):
    assert main(["plan", recipe, *options]) == 2
    assert message in capsys.readouterr().err
