import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.config import Recipe
from tutelage.errors import ConfigError
from tutelage.pipeline.graph import check_stage_names, needed_stages, stage_threads


def build(reads: dict[str, list[str]]) -> Recipe:
    stages = {
        name: {"kind": "sft", "model": "org/m", "data": [*needed, "org/d"]}
        for name, needed in reads.items()
    }
    return Recipe.model_validate({"name": "graph", "stages": stages})


DIAMOND = {"world": [], "left": ["world"], "right": ["world"], "end": ["left", "right"]}


def test_stage_needs_all_that_lead_to_it_in_recipe_order():
    assert needed_stages(build(DIAMOND), ["end"]) == ("world", "left", "right", "end")
    assert needed_stages(build(DIAMOND), ["right"]) == ("world", "right")
    assert needed_stages(build(DIAMOND), ["right", "left"]) == ("world", "left", "right")


def test_stage_that_never_has_company_gets_all_threads():
    recipe = build(DIAMOND)
    assert [stage_threads(recipe, name, 4, 2) for name in DIAMOND] == [4, 2, 2, 4]


def test_stage_has_at_least_one_thread():
    assert stage_threads(build(DIAMOND), "left", 1, 2) == 1


@st.composite
def graphs(draw):
    names = [f"s{index}" for index in range(draw(st.integers(1, 6)))]
    return {
        name: draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else []
        for index, name in enumerate(names)
    }


@given(graphs(), st.integers(1, 8), st.integers(1, 8))
def test_stages_that_can_run_together_never_use_more_threads_than_there_are(
    reads, threads, parallel
):
    recipe, parallel = build(reads), min(threads, parallel)

    def independent(a: str, b: str) -> bool:
        return a not in needed_stages(recipe, [b]) and b not in needed_stages(recipe, [a])

    for size in range(1, min(parallel, len(reads)) + 1):
        for group in itertools.combinations(reads, size):
            if all(independent(a, b) for a, b in itertools.combinations(group, 2)):
                assert sum(stage_threads(recipe, n, threads, parallel) for n in group) <= threads


def test_unknown_stage_is_refused():
    with pytest.raises(ConfigError, match=r"--only ledt: no such stage\. Did you mean 'left'"):
        check_stage_names(build(DIAMOND), ["ledt"], "--only")
