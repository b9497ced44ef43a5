"""Runs recipes: stages in child processes, finished ones recognised and skipped."""

from tutelage.pipeline.context import StageContext
from tutelage.pipeline.references import References
from tutelage.pipeline.run import RunResult, run_recipe, run_stage

__all__ = ["References", "RunResult", "StageContext", "run_recipe", "run_stage"]
