"""Runs one stage in this process and prints the most memory it ever took, in bytes.

python measured_stage.py '{"kind": "sft", "model": ...}' FOLDER CORES
"""

import importlib
import json
import sys
from pathlib import Path

from tutelage.config import Recipe
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.references import References
from tutelage.tracking.metrics import MetricWriter
from tutelage.tracking.progress import NullProgress


def highest_resident_bytes() -> int:
    """Of this process alone; `ru_maxrss` begins with that of whoever started it."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError("the kernel does not tell VmHWM")


def main(stage: str, folder: Path, cores: int) -> None:
    """Runs the stage as a worker does."""
    recipe = Recipe.model_validate({"name": "measured", "stages": {"stage": json.loads(stage)}})
    config = recipe.stages["stage"]
    context = StageContext(
        name="stage",
        folder=folder,
        seed=0,
        threads=1,
        cores=cores,
        progress=NullProgress(),
        metrics=MetricWriter([]),
        references=References(),
    )
    importlib.import_module(f"tutelage.pipeline.stages.{config.kind}").run(config, context)
    print(highest_resident_bytes())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
