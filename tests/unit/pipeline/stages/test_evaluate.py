"""The evaluation: a row for the best of n, which nothing was trained for, and what it costs."""

import json
import math

import pytest
import torch
from pydantic import ValidationError

from tutelage.config import EvaluateStage
from tutelage.data.chat import encode_prompts
from tutelage.data.loaders import load_prompts
from tutelage.generation import LocalEngine
from tutelage.models import RewardModel
from tutelage.pipeline.stages import evaluate
from tutelage.pipeline.stages.preparation import load_policy, sampling_of
from tutelage.records import EncodedPrompt

SEED, N = 3, 3


@pytest.fixture
def stage(tiny_recipe):
    """`stage(best_of_n={...})`: the tiny model twice on the tiny prompts."""
    train = tiny_recipe.stages["train"]

    def build(**settings) -> EvaluateStage:
        return EvaluateStage.model_validate(
            {
                "models": {"before": train.model, "same": train.model},
                "baseline": "before",
                "prompts": train.prompts,
                "reward": train.reward.model,
                "sampling": {"max_tokens": 5},
                **settings,
            }
        )

    return build


def record_of(stage: EvaluateStage, context) -> dict:
    where = context(SEED)
    evaluate.run(stage, where)
    return json.loads((where.folder / "evaluation.json").read_text())


def measures(record: dict) -> dict[str, dict[str, float]]:
    return {
        model["name"]: {key: value["mean"] for key, value in model["measures"].items()}
        for model in record["models"]
    }


def by_hand(stage: EvaluateStage) -> tuple[float, float, float]:
    """Mean proxy and length of the best of N, and mean tokens drawn, prompt by prompt."""
    policy, tokenizer = load_policy(stage.models["before"])
    prompts = load_prompts(stage.prompts)
    encoded = encode_prompts(tokenizer, prompts)
    asked = [EncodedPrompt(p, tuple(ids)) for p, ids in zip(prompts, encoded.ids, strict=True)]
    settings = stage.sampling.model_copy(update={"samples_per_prompt": N})
    engine = LocalEngine(policy, tokenizer, torch.Generator().manual_seed(SEED))
    drawn = engine.generate(asked, sampling_of(settings, tokenizer))
    reward = RewardModel.load(stage.reward).eval()
    best, lengths = [], []
    for i, prompt in enumerate(prompts):
        candidates = drawn[N * i : N * (i + 1)]
        scores = [reward.score([prompt], [each.text])[0] for each in candidates]
        best.append(max(scores))
        lengths.append(len(candidates[scores.index(max(scores))].tokens))
    tokens = sum(len(each.tokens) for each in drawn)
    return sum(best) / len(best), sum(lengths) / len(lengths), tokens / len(prompts)


def test_best_of_n_is_a_row_of_the_table(stage, context):
    asked = stage(best_of_n={"best of 3": N})
    record = record_of(asked, context)
    found = measures(record)
    assert list(found) == ["before", "same", "best of 3"]
    proxy, length, drawn = by_hand(asked)
    row = found["best of 3"]
    # Scored in other batches here and there.
    assert row["proxy"] == pytest.approx(proxy, abs=1e-4)
    assert row["length"] == pytest.approx(length)
    assert row["drawn"] == pytest.approx(drawn)
    assert row["kl"] == pytest.approx(math.log(3) - 2 / 3)
    assert row["proxy"] > found["before"]["proxy"]
    assert found["before"]["drawn"] == found["before"]["length"]
    assert record["models"][2]["stage"] == record["models"][0]["stage"]
    assert {
        (row["model"], row["baseline"]) for row in record["differences"] if row["measure"] == "kl"
    } == {("same", "before"), ("best of 3", "before"), ("best of 3", "same")}


def test_without_best_of_n_an_answer_costs_its_own_tokens_and_nothing_is_said(stage, context):
    record = record_of(stage(), context)
    assert "drawn" not in {measure["key"] for measure in record["measures"]}
    assert "drawn" not in measures(record)["before"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"best_of_n": {"b": 4}, "reward": None}, "best_of_n is set and reward is not"),
        ({"best_of_n": {"same": 4}}, "'same' is a label in both models and best_of_n"),
        ({"best_of_n": {"b": 0}}, "greater than 0"),
    ],
)
def test_best_of_n_that_cannot_be_answered_is_refused(stage, settings, reason):
    with pytest.raises(ValidationError, match=reason):
        stage(**settings)


def test_win_rate_is_measured_where_a_judge_is_named(stage, context, tmp_path):
    judge = tmp_path / "judges.py"
    judge.write_text(
        "def longer(comparisons):\n"
        "    return [0.9 if len(c.a) > len(c.b) else 0.1 for c in comparisons]\n"
    )
    judged = stage(win_rate=f"{judge}:longer", best_of_n={"best": N}, show=100)
    record = record_of(judged, context)
    by_name = measures(record)
    # The same model draws the same answers from the same seed.
    assert by_name["before"]["win"] == by_name["same"]["win"] == 0.5
    answers = [[a["text"] for a in row["answers"].values()] for row in record["samples"]]
    names = list(record["samples"][0]["answers"])
    place, base = names.index("best"), names.index("before")
    expected = [
        0.5
        if len(row[place]) == len(row[base])
        else 0.9
        if len(row[place]) > len(row[base])
        else 0.1
        for row in answers
    ]
    assert by_name["best"]["win"] == pytest.approx(sum(expected) / len(expected))
    assert any(measure["key"] == "win" for measure in record["measures"])
    assert list(judged.files()) == [("win_rate", str(judge))]


def test_win_rate_is_of_answers_and_not_of_conversations(stage):
    with pytest.raises(ValidationError, match="win_rate and environment"):
        stage(win_rate="judge.yaml", environment={"name": "env.py:Env"})
