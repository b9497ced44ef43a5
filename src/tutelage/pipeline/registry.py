"""The stage function of each `kind`: `run(config, context) -> metrics` in the named module.

Names, not functions: the process that supervises a run imports neither torch nor gold.
"""

from collections.abc import Mapping

__all__ = ["STAGE_MODULES"]

STAGE_MODULES: Mapping[str, str] = {
    kind: f"tutelage.pipeline.stages.{kind}"
    for kind in (
        "helpdesk",
        "pretrain",
        "sft",
        "sample",
        "label",
        "pairs",
        "openings",
        "reward",
        "train",
        "evaluate",
    )
}
"""Module by kind."""
