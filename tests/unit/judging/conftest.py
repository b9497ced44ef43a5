"""Judges of a scripted endpoint, over real connections."""

from collections.abc import Callable, Iterator

import pytest

from tutelage.judging import (
    Asker,
    AskLimits,
    EndpointModel,
    JudgeCache,
    JudgeSettings,
    ModelJudge,
    Rubric,
)

RUBRIC = Rubric("short", "The shorter answer is better.")


@pytest.fixture
def judge_of() -> Iterator[Callable[..., ModelJudge]]:
    """Makes judges of an endpoint: limits, settings and a cache as the test says."""
    pytest.importorskip("openai")
    made: list[ModelJudge] = []

    def judge(endpoint, *, cache=None, budget=None, rubric=RUBRIC, **options) -> ModelJudge:
        limits = {"first_pause": 0.01, "seconds": 20.0}
        names = AskLimits.__dataclass_fields__
        limits |= {key: options.pop(key) for key in list(options) if key in names}
        decisions = options.get("probabilities") == "decisions"
        asker = Asker(
            EndpointModel("fake", endpoint.url, "none", decisions=decisions),
            JudgeCache(cache),
            budget=budget,
            limits=AskLimits(**limits),
        )
        made.append(ModelJudge(asker, rubric, JudgeSettings(**options)))
        return made[-1]

    yield judge
    for each in made:
        each.close()
