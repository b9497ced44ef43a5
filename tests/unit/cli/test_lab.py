import json

import pytest

from tutelage.cli.main import main

LABS = ("gridworld", "bandit", "cartpole", "timeline")


@pytest.mark.parametrize("lab", LABS)
def test_help_of_a_lab_answers_with_an_example(capsys, lab):
    assert main(["lab", lab, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Usage: tutelage lab {lab}" in shown
    assert f"Example: tutelage lab {lab} " in shown


@pytest.mark.parametrize(
    ("arguments", "figures", "words"),
    [
        (["gridworld", "--size", "3", "--seeds", "2", "--wall", "1,1"], 2, "from start"),
        (["bandit", "--pulls", "60", "--players", "3"], 2, "reward per pull"),
        (["timeline"], 1, "Perceptron"),
    ],
)
def test_lab_prints_a_table_and_writes_its_files(capsys, tmp_path, arguments, figures, words):
    assert main(["lab", *arguments, "--output", str(tmp_path / "out")]) == 0
    assert words in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("*.png"))) == figures
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["lab"] == arguments[0]


@pytest.mark.slow
def test_cartpole_lab_prints_its_tables_and_writes_its_files(capsys, tmp_path):
    pytest.importorskip("gymnasium", reason="the extra labs is not installed")
    from tutelage.labs.cartpole_lab import cartpole_lab
    from tutelage.labs.settings import CartPoleSettings

    settings = CartPoleSettings(
        steps=300, seeds=1, discounts=(0.9,), noise_steps=300, noise_batches=3, episodes=2
    )
    result = cartpole_lab(settings)
    assert set(result.summary["evaluation"]) == {
        *("random", "REINFORCE", "REINFORCE + baseline", "actor-critic", "PPO", "PPO, γ 0.9")
    }
    assert len(result.tables) == len(result.figures) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gridworld", "--wall", "11"], "--wall 11: expected row,column"),
        (["gridworld", "--gamma", "1"], "--gamma 1: expected at least 0 and below 1"),
        (["gridworld", "--explore", "softmax"], "--explore"),
        (["bandit", "--temperature", "0"], "--temperature 0: expected above 0"),
        (["cartpole", "--steps", "0"], "--steps 0: expected at least 1"),
        (["timeline", "--data", "none.yaml"], "none.yaml"),
        (["gridword"], 'Did you mean "gridworld"?'),
    ],
)
def test_wrong_option_is_named(capsys, arguments, message):
    assert main(["lab", *arguments]) == 2
    assert message in capsys.readouterr().err
