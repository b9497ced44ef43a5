"""Who may see gold is stated here, independently of the code that enforces it."""

from tutelage.pipeline.isolation import MAY_SEE_GOLD
from tutelage.pipeline.registry import STAGES


def test_evaluation_alone_may_see_gold():
    assert sorted(MAY_SEE_GOLD) == ["evaluate"]


def test_every_stage_that_makes_something_is_blind():
    makers = {"pretrain", "sft", "sample", "label", "reward", "train"}
    assert makers <= set(STAGES.modules) - MAY_SEE_GOLD
