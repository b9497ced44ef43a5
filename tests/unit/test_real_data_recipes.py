"""Both recipes for real data, whole, on small generated files of the same schemas."""

import gzip
import json
import random
from pathlib import Path

import pytest

from tutelage import run
from tutelage.config import load_recipe
from tutelage.data.loaders import load_preferences, load_prompts, load_texts
from tutelage.errors import ConfigError
from tutelage.pipeline.run import RunResult

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
TINY_MODEL = {
    "base.model": "{hidden_size: 16, layers: 1, heads: 2, mlp_size: 32, vocabulary: 300}",
    "base.steps": "2",
    "base.rows": "2",
    "base.length": "24",
}
TINY_PPO = {
    "samples.limit": "8",
    "samples.sampling.max_tokens": "6",
    "ppo.ppo.steps": "2",
    "ppo.ppo.prompts_per_step": "4",
    "ppo.ppo.batch.minibatch": "4",
    "ppo.ppo.sampling.max_tokens": "6",
    "evaluation.sampling.max_tokens": "6",
}
HH_PARTS = "{reward: 0.4, judge: 0.3, rl: 0.2, test: 0.1}"
SUBJECTS = ("plot", "cast", "score", "ending", "script", "camera", "humour", "pace")
VERBS = ("is", "feels", "looks", "sounds", "seems")
PRAISE, BLAME = ("great", "lovely", "superb"), ("dull", "awful", "weak")


def write(path: Path, rows: list[dict]) -> str:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": f"row-{i}", **row}) + "\n" for i, row in enumerate(rows))
    return str(path)


def review(source: random.Random, label: int) -> str:
    words = PRAISE if label else BLAME
    clauses = (
        f"{source.choice(SUBJECTS)} {source.choice(VERBS)} {source.choice(words)}" for _ in range(4)
    )
    return f"{source.choice(('the', 'this'))} " + " and the ".join(clauses)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """One file of each schema that the recipes read."""
    folder, source = tmp_path_factory.mktemp("data"), random.Random(0)
    labels = [i % 2 for i in range(120)]
    texts = [{"text": " . ".join(review(source, i % 2) for i in range(6))} for _ in range(60)]
    talk = [[f"is the {source.choice(SUBJECTS)} number {i} good ?"] for i in range(60)]
    for i, turns in enumerate(talk):
        turns += ["yes", "and the rest ?"] * (i % 3)
    talk[0] = ["word " * 300]
    prompts = [
        [{"role": ("user", "assistant")[k % 2], "content": turn} for k, turn in enumerate(turns)]
        for turns in talk
    ]
    return {
        "text": write(folder / "text.jsonl.gz", texts),
        "labelled": write(
            folder / "labelled.jsonl.gz",
            [{"text": review(source, label), "label": label} for label in labels],
        ),
        "demonstrations": write(
            folder / "sft.jsonl.gz",
            [
                {"messages": [*prompt, {"role": "assistant", "content": "a fine answer ."}]}
                for prompt in prompts[1:]
            ],
        ),
        "preferences": write(
            folder / "preferences.jsonl.gz",
            [{"prompt": p, "chosen": "yes , it is .", "rejected": "no ."} for p in prompts],
        ),
    }


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    """Runs a recipe at toy size."""

    def go(name: str, **settings: str) -> RunResult:
        recipe = load_recipe(RECIPES / f"{name}.yaml")
        given = {f"inputs.{key}": files[key] for key in recipe.inputs} | settings
        overrides = [f"--{key}={value}" for key, value in given.items()]
        folder = tmp_path_factory.mktemp(name) / "run"
        overrides += ["--threads=1", "--parallel=1"]
        return run(RECIPES / f"{name}.yaml", folder, overrides=overrides, display=False)

    return go


@pytest.fixture(scope="module")
def sentiment(finished) -> RunResult:
    return finished(
        "sentiment",
        **TINY_MODEL,
        **TINY_PPO,
        **{"pairs.count": "20", "openings.train": "24", "openings.test": "8"},
    )


@pytest.fixture(scope="module")
def hh(finished) -> RunResult:
    return finished("hh", **TINY_MODEL, **TINY_PPO, **{"parts.parts": HH_PARTS})


def evaluation(result: RunResult) -> dict:
    return json.loads((result.stage("evaluation") / "evaluation.json").read_text())


def test_sentiment_measures_both_models_by_lexicon_and_proxy(sentiment):
    record = evaluation(sentiment)
    assert [model["name"] for model in record["models"]] == ["before", "after"]
    keys = {
        "proxy",
        "positive",
        "compound",
        "negative",
        "distinct_2",
        "stock_phrases",
        "kl",
        "length",
    }
    for model in record["models"]:
        assert keys <= set(model["measures"])
        assert model["measures"]["positive"]["n"] == 8
    assert {row["measure"] for row in record["differences"]} >= keys - {"stock_phrases"}
    assert record["samples"][0]["answers"].keys() == {"before", "after"}


def test_sentiment_follows_the_held_out_signal_through_training(sentiment):
    steps = [point["step"] for point in evaluation(sentiment)["checkpoints"]]
    assert steps == [0, 2]


def test_sentiment_reports_the_accuracy_of_its_reward_model_with_an_interval(sentiment):
    accuracy = json.loads((sentiment.stage("reward") / "reward.json").read_text())[
        "held_out_accuracy"
    ]
    assert accuracy["low"] <= accuracy["mean"] <= accuracy["high"]


def test_sentiment_trains_and_tests_on_different_texts(sentiment, files):
    stages = {name: sentiment.stage(name) for name in ("pairs", "parts", "openings")}
    paired = set()
    for row in load_preferences(stages["pairs"] / "preferences.jsonl"):
        paired |= {
            row.comparison.prompt.text + text for text in (row.comparison.a, row.comparison.b)
        }
    openings = set(load_texts(stages["parts"] / "openings.jsonl"))
    read = set(load_texts(stages["parts"] / "text.jsonl"))
    assert not paired & openings
    assert not paired & read
    assert not openings & read
    train, test = (
        {prompt.text for prompt in load_prompts(stages["openings"] / f"{name}.jsonl")}
        for name in ("train", "test")
    )
    assert not train & test
    assert all(any(text.startswith(opening) for text in openings) for opening in train | test)
    assert (paired | openings | read) <= set(load_texts(files["labelled"]))


def test_hh_judges_by_a_reward_model_that_saw_other_preferences(hh):
    record = evaluation(hh)
    for model in record["models"]:
        assert {"proxy", "judge", "kl"} <= set(model["measures"])
    beginnings = [
        {prompt.messages[0].content for prompt in load_prompts(hh.stage("parts") / f"{name}.jsonl")}
        for name in ("reward", "judge", "rl", "test")
    ]
    for i, part in enumerate(beginnings):
        assert all(part.isdisjoint(other) for other in beginnings[i + 1 :])


def test_hh_trains_on_dialogues_of_several_turns(hh):
    lengths = {len(prompt.messages) for prompt in load_prompts(hh.stage("parts") / "rl.jsonl")}
    assert lengths >= {1, 3, 5}


@pytest.mark.parametrize("name", ["sentiment", "hh"])
def test_missing_inputs_are_named_with_their_options(name, tmp_path):
    with pytest.raises(ConfigError, match=rf"{name} needs files of yours, add: --inputs.text FILE"):
        run(RECIPES / f"{name}.yaml", tmp_path / "run", display=False)
