import subprocess
import sys

import pytest

from tutelage.config import SFTStage
from tutelage.pipeline.extras import require_extras

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
