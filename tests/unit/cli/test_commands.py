import json
from pathlib import Path

import pytest

from tutelage.cli.main import main
from tutelage.cli.stages import STAGE_COMMANDS
from tutelage.config import (
    DPOStage,
    EvaluateStage,
    RewardStage,
    SFTStage,
    Stage,
    TrainStage,
    build_section,
    load_recipe,
)
from tutelage.pipeline import References
from tutelage.pipeline.fingerprint import describe_stage, stage_seed
from tutelage.tracking.example_run import write_example_run
from tutelage.tracking.stage import StageFolder

RECIPE = """\
name: small
inputs: {reviews: null}
stages:
  world: {kind: helpdesk}
  train: {kind: train, model: org/m, prompts: world/rl.jsonl, reward: {}}
"""


@pytest.fixture
def recipe(tmp_path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture
def means(tmp_path, capsys):
    """Whether a command asks for exactly this stage.

    The folder it shall write holds that stage, finished: the command then has nothing to run.
    """

    def same(arguments: list[str], stage: Stage) -> bool:
        seed, references = stage_seed(stage, stage.kind, 0), References()
        info = describe_stage(stage, seed, references)
        with StageFolder.create(tmp_path, stage.kind, info) as folder:
            pass
        code = main([*arguments, "--output", str(folder.path)])
        return code == 0 and "is finished already" in " ".join(capsys.readouterr().out.split())

    return same


# config


def test_config_prints_the_recipe_as_it_would_run(capsys, recipe, tmp_path):
    assert main(["config", recipe, "--world.documents", "7", "--seed", "3"]) == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    resolved = load_recipe(printed)
    assert resolved == load_recipe(recipe, ["--world.documents", "7", "--seed", "3"])
    assert resolved.stages["world"].documents == 7


def test_stage_may_have_the_name_of_a_command(capsys, recipe):
    assert main(["config", recipe, "--train.ppo.clip", "0.1"]) == 0
    assert "clip: 0.1" in capsys.readouterr().out


def test_config_refuses_what_a_run_would_refuse(capsys, recipe):
    assert main(["config", recipe, "--train.ppo.clp", "0.1"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("tutelage: --train.ppo.clp: stages.train.ppo.clp: unknown key")
    assert "Did you mean 'clip'?" in shown


def test_config_writes_the_reference(capsys):
    assert main(["config", "--reference"]) == 0
    assert capsys.readouterr().out.startswith("# Configuration reference")


# run


def test_run_without_a_needed_input_names_the_option(capsys, recipe, tmp_path):
    assert main(["run", recipe, "--output", str(tmp_path / "run")]) == 2
    assert "small needs files of yours, add: --inputs.reviews FILE" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_run_with_a_missing_file_leaves_nothing(capsys, recipe, tmp_path):
    given = ["--inputs.reviews", str(tmp_path / "no.jsonl")]
    assert main(["run", recipe, "--output", str(tmp_path / "run"), *given]) == 2
    assert "no.jsonl does not exist" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_misspelt_option_of_run_is_recognised(capsys, recipe):
    assert main(["run", recipe, "--outptu", "x"]) == 2
    assert "unknown option --outptu. Did you mean --output?" in capsys.readouterr().err


def test_run_takes_only_and_force(capsys, recipe):
    given = ["--inputs.reviews", recipe]
    assert main(["run", recipe, *given, "--only", "wrld"]) == 2
    assert "--only wrld: no such stage. Did you mean 'world'" in capsys.readouterr().err
    assert main(["run", recipe, *given, "--force", "world", "--force", "wrld"]) == 2
    assert "--force wrld" in capsys.readouterr().err


# One stage


def test_options_become_the_stage(means):
    arguments = """sft --model org/m --data org/a org/b --epochs 2 --max-length 64
                   --optimizer.learning-rate 1e-3"""
    stage = build_section(
        SFTStage,
        {
            "model": "org/m",
            "data": ["org/a", "org/b"],
            "epochs": 2,
            "max_length": 64,
            "optimizer": {"learning_rate": 1e-3},
        },
    )
    assert means(arguments.split(), stage)
    assert not means([*arguments.split(), "--limit", "3"], stage)


def test_options_win_over_the_file(means, tmp_path):
    file = tmp_path / "sft.yaml"
    file.write_text("model: org/a\ndata: [org/d]\nepochs: 3\n")
    stage = SFTStage(model="org/b", data=("org/d",), epochs=3.0)
    assert means(["sft", "--config", str(file), "--model", "org/b"], stage)


def test_phases_of_a_reward_model_have_options(means):
    arguments = """reward train --model org/m --phases.0.preferences org/a
                   --phases.1.preferences org/b --phases.1.optimizer.floor 0.5"""
    phases = [
        {"preferences": ["org/a"]},
        {"preferences": ["org/b"], "optimizer": {"floor": 0.5}},
    ]
    stage = build_section(RewardStage, {"model": "org/m", "phases": phases})
    assert means(arguments.split(), stage)


def test_models_of_an_evaluation_are_labelled_by_options(means):
    arguments = "evaluate --models.sft org/a --models.ppo org/b --baseline sft --prompts org/p"
    models = {"sft": "org/a", "ppo": "org/b"}
    stage = EvaluateStage(models=models, baseline="sft", prompts="org/p")
    assert means(arguments.split(), stage)


def test_switches_and_optional_sections_have_options(means):
    arguments = """train --model org/m --prompts org/p --reward.model org/r
                   --reward.length.coefficient auto --ppo.no-whiten-advantages --ppo.clip 0.1"""
    settings = {
        "model": "org/m",
        "prompts": "org/p",
        "reward": {"model": "org/r", "length": {"coefficient": "auto"}},
        "ppo": {"whiten_advantages": False, "clip": 0.1},
    }
    assert means(arguments.split(), build_section(TrainStage, settings))


def test_loss_of_dpo_has_options(means):
    arguments = """dpo --model org/m --preferences org/a org/b --dpo.loss ipo --dpo.beta 0.5
                   --dpo.length-normalise"""
    settings = {
        "model": "org/m",
        "preferences": ["org/a", "org/b"],
        "dpo": {"loss": "ipo", "beta": 0.5, "length_normalise": True},
    }
    assert means(arguments.split(), build_section(DPOStage, settings))


def test_missing_option_is_named(capsys):
    assert main(["sample", "--output", "o", "--model", "m"]) == 2
    assert capsys.readouterr().err == "tutelage: prompts: missing; needed: a reference\n"


@pytest.mark.parametrize("kind", STAGE_COMMANDS)
def test_example_in_the_help_has_all_it_needs(capsys, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    main([kind, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    example = shown.partition("Example: tutelage ")[2].partition(" ╭")[0].split()
    folder = Path(example[example.index("--output") + 1])
    folder.mkdir(parents=True)
    (folder / "occupied").touch()
    assert main(example) == 2
    # The last thing looked at before the stage would run: all options were right.
    assert "is not empty" in capsys.readouterr().err


def test_help_shows_the_default_of_the_stage_itself(capsys):
    main(["sft", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "Peak learning rate. [default: 2e-05]" in shown
    assert "The model to start from. [required]" in shown


# validate


def test_validate_names_each_fault_and_fails(capsys, tmp_path):
    file = tmp_path / "prompts.jsonl"
    good = {"id": "1", "prompt": [{"role": "user", "content": "hello"}]}
    file.write_text(json.dumps(good) + "\n{\n" + json.dumps({"id": "2", "prompt": []}) + "\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["validate", str(file)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"{file}:2", f"{file}:3", str(file)]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_validate_accepts_good_files_and_says_what_they_hold(capsys, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"id": "1", "prompt": [{"role": "user", "content": "hello"}]}\n')
    assert main(["validate", str(file), "--schema", "prompts"]) == 0
    assert "1 row of prompts, 0 faults" in capsys.readouterr().out


def test_validate_finds_prompts_of_the_test_set(capsys, tmp_path):
    file, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    row = '{"id": "1", "prompt": [{"role": "user", "content": "what is the price of tea"}]}\n'
    file.write_text(row)
    test.write_text(row.replace('"1"', '"2"'))
    assert main(["validate", str(file), "--against", str(test)]) == 2
    assert f"{file}:1: its prompt is also in {test}:1" in capsys.readouterr().out


def test_validate_finds_what_is_nearly_the_same_where_it_is_asked_to(capsys, tmp_path):
    file = tmp_path / "texts.jsonl"
    words = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ]
    rows = [{"id": f"{i}", "text": " ".join([*words, end])} for i, end in enumerate("ab")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["validate", str(file), "--near", "0.5"]) == 0
    said = capsys.readouterr().out
    assert f"{file}:2: is nearly line 1, about " in said
    assert "1 near-duplicate, 0 near-leaks" in said
    assert main(["validate", str(file)]) == 0
    assert "near" not in capsys.readouterr().out


def test_validate_refuses_an_unknown_schema(capsys, tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text("{}\n")
    assert main(["validate", str(file), "--schema", "prompt"]) == 2
    assert "'prompt' is no schema; expected one of" in capsys.readouterr().err


# report


def test_report_of_a_folder_without_a_run_is_refused(capsys, tmp_path):
    assert main(["report", str(tmp_path)]) == 4
    assert "holds no finished stage" in capsys.readouterr().err


def test_report_is_written_again(capsys, tmp_path):
    run = write_example_run(tmp_path)
    page = Path(run) / "report.html"
    page.unlink(missing_ok=True)
    assert main(["report", str(run)]) == 0
    assert page.exists()
    assert f"report: {page}" in capsys.readouterr().out


# compare


def test_compare_prints_the_table_and_writes_it(capsys, tmp_path):
    run = write_example_run(tmp_path / "demo", steps=3)
    assert main(["compare", str(run), "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "Gold score" in shown
    assert str(tmp_path / "out" / "comparison.json") in shown
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [model["name"] for model in found["models"]] == ["before", "unguarded", "guarded"]
    assert "| Guarded | 0.61 ±0.06 |" in (tmp_path / "out" / "comparison.md").read_text()
