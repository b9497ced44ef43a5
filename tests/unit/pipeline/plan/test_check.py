"""A run that cannot fit is not begun."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from tutelage.config import Recipe
from tutelage.errors import ConfigError
from tutelage.pipeline import run_recipe
from tutelage.pipeline.plan.check import check_memory, to_be_run
from tutelage.pipeline.plan.recipe import recipe_references
from tutelage.pipeline.references import References
from tutelage.pipeline.registry import Registry
from tutelage.tracking.stage import StageFolder, StageInfo, stage_path

HUGE = {"hidden_size": 1 << 16, "layers": 100, "heads": 64, "mlp_size": 1 << 18}
"""A model of some 10^13 weights, which no machine holds."""


@pytest.fixture
def huge(tmp_path) -> Recipe:
    data = tmp_path / "texts.jsonl"
    data.write_text("")

    def build(**settings):
        stage = {"kind": "pretrain", "data": [str(data)], "model": HUGE}
        return Recipe.model_validate({"name": "huge", "stages": {"base": stage}, **settings})

    return build


def checked(recipe, names=None) -> str:
    """What the check has said on the console."""
    console = Console(file=io.StringIO(), width=400)
    wanted = list(recipe.stages) if names is None else names
    check_memory(recipe, recipe_references(recipe), wanted, console)
    return console.file.getvalue()


def test_run_that_cannot_fit_is_refused_and_leaves_nothing(huge, tmp_path):
    with pytest.raises(ConfigError, match=r"huge needs [\d,.]+ TB at its peak \(stage base\)") as e:
        run_recipe(huge(), tmp_path / "run", display=False)
    assert "are available on this" in str(e.value)
    assert "--memory-check warn runs it all the same" in str(e.value)
    assert not (tmp_path / "run").exists()


def test_warning_goes_on(huge):
    assert "warning: huge needs" in checked(huge(memory_check="warn"))


def test_check_can_be_switched_off(huge):
    assert checked(huge(memory_check="off")) == ""


def test_stages_that_do_not_run_are_not_counted(huge):
    assert checked(huge(), names=[]) == ""


def test_model_that_cannot_be_counted_is_left_to_its_stage(recipe_of):
    recipe = recipe_of(sft={"model": "org/unknown", "data": ["texts.jsonl"]})
    assert "memory was not checked: the size of org/unknown is not known" in checked(recipe)


def test_functions_of_others_are_not_judged(huge):
    recipe, console = huge(), Console(file=io.StringIO())
    registry = Registry({"pretrain": "somebody.elses"})
    check_memory(recipe, recipe_references(recipe), ["base"], console, registry)
    assert console.file.getvalue() == ""


def test_finished_stages_are_not_run_again_unless_forced(huge, tmp_path):
    recipe = huge()
    stage = recipe.stages["base"]
    references = References({"base": stage_path(tmp_path, "base")})
    assert to_be_run(recipe, references, ["base"], ()) == ["base"]
    info = StageInfo(stage.kind, stage.to_json(), "fingerprint", {}, 0)
    with StageFolder.create(tmp_path, "base", info):
        pass
    assert to_be_run(recipe, references, ["base"], ()) == []
    assert to_be_run(recipe, references, ["base"], ("base",)) == ["base"]
    other = recipe.stages["base"].model_copy(update={"steps": 7})
    changed = recipe.model_copy(update={"stages": {"base": other}})
    assert to_be_run(changed, references, ["base"], ()) == ["base"]


def test_supervisor_does_not_import_torch_for_it():
    program = (
        "import sys\n"
        "import tutelage.pipeline.run, tutelage.pipeline.plan.check\n"
        "sys.exit(len({'torch', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
