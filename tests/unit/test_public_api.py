import subprocess
import sys
from pathlib import Path

import pytest

import tutelage
from tutelage.config import (
    ChooseStage,
    EvaluateStage,
    LabelStage,
    PretrainStage,
    RewardStage,
    SampleStage,
    SFTStage,
    Stage,
    TrainStage,
    build_section,
)
from tutelage.pipeline import References
from tutelage.pipeline.fingerprint import describe_stage, stage_seed
from tutelage.tracking.stage import StageFolder

PUBLIC = {
    "CheckpointError", "Comparison", "Completion", "ConfigError", "DataError", "Demonstration",
    "Environment", "GenerationError", "Message", "MissingExtraError", "ModelError", "Preference",
    "Prompt", "Recipe", "Reply", "RewardError", "RunResult", "Score", "ScoreStatus", "StopReason",
    "TrainingError", "Turn", "TutelageError", "__version__", "choose", "dpo", "evaluate",
    "label", "load_recipe", "prefer", "pretrain", "revise", "reward", "run", "sample", "select",
    "sft", "train",
}  # fmt: skip


def test_public_surface_is_as_documented():
    assert set(tutelage.__all__) == PUBLIC
    assert set(dir(tutelage)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_leads_to_its_object(name):
    assert getattr(tutelage, name) is getattr(tutelage, name)
    namespace: dict[str, object] = {}
    exec(f"from tutelage import {name} as found", namespace)
    assert namespace["found"] is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tutelage' has no attribute 'ppo'"):
        _ = tutelage.ppo


def test_import_is_light_and_so_are_records_and_recipes():
    program = (
        "import sys, tutelage\n"
        "light = set(sys.modules)\n"
        "assert not {'torch', 'pydantic', 'tutelage.config'} & light, 'import tutelage'\n"
        "tutelage.Prompt, tutelage.Recipe, tutelage.run, tutelage.sft\n"
        "assert 'torch' not in sys.modules, 'the public names'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def finished(folder: Path, stage: Stage) -> Path:
    """A folder that holds the stage, finished: a function asked for it has nothing to run."""
    info = describe_stage(stage, stage_seed(stage, stage.kind, 0), References())
    with StageFolder.create(folder, stage.kind, info) as made:
        pass
    return made.path


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        (PretrainStage, {"data": ["org/d"]}),
        (SFTStage, {"model": "org/m", "data": ["org/d"], "optimizer": {"floor": 0.5}}),
        (SampleStage, {"model": "org/m", "prompts": "org/p"}),
        (ChooseStage, {"samples": ["org/s"], "budget": 100}),
        (LabelStage, {"samples": "org/s", "annotator": "judge"}),
        (RewardStage, {"model": "org/m", "phases": [{"preferences": ["org/p"]}]}),
        (TrainStage, {"model": "org/m", "prompts": "org/p", "reward": {"model": "org/r"}}),
        (EvaluateStage, {"models": {"a": "org/m"}, "baseline": "a", "prompts": "org/p"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_stage_function_takes_settings_or_a_section(tmp_path, section, settings):
    stage = build_section(section, settings)
    function = getattr(tutelage, stage.kind)
    folder = finished(tmp_path, stage)
    assert function(folder, **settings, display=False) == folder
    assert function(folder, stage, display=False) == folder
    with pytest.raises(tutelage.ConfigError, match=r"made with other settings .seed changed"):
        function(folder, **settings, seed=5, display=False)


def test_stage_function_takes_paths_as_references(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    folder = finished(tmp_path, SFTStage(model=str(model), data=("org/d",)))
    assert tutelage.sft(folder, model=model, data=["org/d"], display=False) == folder


def test_stage_function_explains_wrong_settings():
    with pytest.raises(tutelage.ConfigError, match=r"epoch: unknown key .* mean 'epochs'"):
        tutelage.sft("out", model="m", data=["a"], epoch=3)
    with pytest.raises(tutelage.ConfigError, match="give one or the other"):
        tutelage.sft("out", SFTStage(model="m", data=("a",)), epochs=3)


def test_run_refuses_overrides_of_a_recipe_object():
    recipe = tutelage.Recipe.model_validate({"name": "x", "stages": {"w": {"kind": "helpdesk"}}})
    with pytest.raises(tutelage.ConfigError, match="overrides change a recipe's file"):
        tutelage.run(recipe, overrides=["--seed", "1"])
