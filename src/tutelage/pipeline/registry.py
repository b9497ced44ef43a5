"""The stage function of each `kind`: `run(config, context) -> metrics` in the named module.

Names, not functions: the process that supervises a run imports neither torch nor gold.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tutelage.config.schema import stage_kinds

__all__ = ["STAGES", "Registry"]


@dataclass(frozen=True)
class Registry:
    """What can run, and what children share."""

    modules: Mapping[str, str]
    """Module of the stage function by kind."""
    preload: tuple[str, ...] = ()
    """Modules that the fork server imports once for all children; never the gold score."""


STAGES = Registry(
    modules={kind: f"tutelage.pipeline.stages.{kind}" for kind in stage_kinds()},
    preload=(
        "torch",
        "transformers.models.llama.modeling_llama",
        "transformers.models.auto.modeling_auto",
        "tutelage.pipeline.stages.preparation",
    ),
)
"""The stages of `tutelage.config.Stage`."""
