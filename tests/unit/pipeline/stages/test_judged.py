"""Online DPO in a real stage with a judge in the place of a reward."""

import pytest

from tutelage.config import TrainStage
from tutelage.errors import ConfigError, RewardError
from tutelage.pipeline.fingerprint import describe_stage
from tutelage.pipeline.references import References
from tutelage.pipeline.stages import train

JUDGE = """
def longer(comparisons):
    return [float(len(each.a) > len(each.b)) for each in comparisons]

def wrong(comparisons):
    return [2.0] * len(comparisons)
"""


@pytest.fixture
def stage(tiny_recipe, tmp_path):
    """`stage("longer")`: four rounds of online DPO with that judge."""
    (tmp_path / "judges.py").write_text(JUDGE)

    def build(name: str) -> TrainStage:
        row = tiny_recipe.stages["train"].model_dump()
        row = {k: v for k, v in row.items() if k not in ("ppo", "critic", "reward", "probes")}
        settings = {
            "judge": f"{tmp_path / 'judges.py'}:{name}",
            "steps": 4,
            "prompts_per_step": 4,
            "batch": {"minibatch": 4, "microbatch_tokens": 32},
            "sampling": {"max_tokens": 5, "samples_per_prompt": 2},
        }
        return TrainStage.model_validate({**row, "algorithm": "online_dpo", "online_dpo": settings})

    return build


def test_policy_learns_what_a_judge_prefers_and_nothing_is_scored(stage, context, read_rows):
    place = context()
    metrics = train.run(stage("longer"), place)
    assert (place.folder / "model" / "model.safetensors").is_file()
    # Of two completions that were compared one is worth p and the other 1 - p.
    assert metrics["reward/score"] == pytest.approx(0.5)
    rows = read_rows(place.folder / "samples.jsonl")
    scores = {score for row in rows if (score := row["score"]) is not None}
    assert scores <= {0.0, 0.5, 1.0}
    assert {0.0, 1.0} <= scores


def test_answers_of_a_judge_that_are_no_probabilities_end_the_stage(stage, context):
    with pytest.raises(RewardError, match=r"the judge returned 2\.0"):
        train.run(stage("wrong"), context())


def test_judge_that_is_not_there_is_named(stage, context):
    with pytest.raises(ConfigError, match="has no function 'absent'"):
        train.run(stage("absent"), context())


def test_a_changed_judge_is_another_stage(stage, tmp_path):
    before = describe_stage(stage("longer"), 0, References())
    (tmp_path / "judges.py").write_text(JUDGE + "\n# another version\n")
    assert describe_stage(stage("longer"), 0, References()).fingerprint != before.fingerprint
