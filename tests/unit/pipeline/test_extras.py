"""What is not installed is missed before anything runs."""

import subprocess
import sys

import pytest

from tutelage.config import LoRAConfig, SFTStage
from tutelage.errors import MissingExtraError
from tutelage.pipeline.extras import require_extras


def stage(**lora) -> SFTStage:
    return SFTStage(model="base", data=("sft.jsonl",), lora=LoRAConfig(**lora))


def test_nothing_is_missed_where_nothing_is_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    require_extras([SFTStage(model="base", data=("sft.jsonl",))])


@pytest.mark.parametrize(
    ("package", "extra", "lora"),
    [("peft", "lora", {}), ("bitsandbytes", "qlora", {"quantise": "4bit"})],
)
def test_extra_is_named(monkeypatch, package, extra, lora):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"^{package} is not .*'tutelage\[{extra}\]'"):
        require_extras([stage(**lora)])


def test_run_ends_before_its_first_stage_and_leaves_nothing(tmp_path):
    """The first stage needs no adapter and could run."""
    (tmp_path / "recipe.yaml").write_text(
        "name: a\nstages:\n"
        "  world: {kind: helpdesk}\n"
        "  sft: {kind: sft, model: org/base, data: [world/sft.jsonl], lora: {}}\n"
    )
    program = (
        "import sys; sys.modules['peft'] = None\n"
        "import tutelage\n"
        "try:\n    tutelage.run('recipe.yaml')\n"
        "except tutelage.MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout == "peft is not installed: pip install 'tutelage[lora]'\n", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


PROGRAM = """
import sys
sys.modules["bitsandbytes"] = None
from tutelage.config import SFTStage, RewardStage
from tutelage.errors import MissingExtraError
from tutelage.pipeline import run_stage

eight = {"algorithm": "adamw8bit"}
phases = [{"preferences": ["b"]}, {"preferences": ["c"], "optimizer": eight}]
for stage in (
    SFTStage(model="a", data=["b"], optimizer=eight),
    RewardStage(model="a", phases=phases),
):
    try:
        run_stage(stage, __import__("pathlib").Path(sys.argv[1]), display=False)
    except MissingExtraError as error:
        print(error)
"""


def test_missing_package_is_named_before_any_work(tmp_path):
    """Neither the model nor the data exists: nobody has looked for them yet."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    message = "bitsandbytes is not installed: pip install 'tutelage[optimizers]'"
    assert done.stdout.splitlines() == [message] * 2, done.stderr


@pytest.mark.parametrize("algorithm", ["adamw", "adafactor"])
def test_what_torch_brings_needs_no_package(algorithm):
    require_extras([SFTStage(model="a", data=["b"], optimizer={"algorithm": algorithm})])
