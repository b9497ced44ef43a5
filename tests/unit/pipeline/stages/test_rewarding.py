"""What a recipe's reward becomes."""

from contextlib import ExitStack

import pytest

from tutelage.config import TrainStage
from tutelage.errors import ConfigError, DataError, RewardError
from tutelage.pipeline.stages.rewarding import compose_reward
from tutelage.records import Completion, Message, Prompt, ScoreStatus, StopReason

ASKED = Prompt("p", (Message("user", "how are you?"),))


def answer(text: str, tokens=(5, 6, 7)) -> Completion:
    return Completion("p", tuple(tokens), (-1.0,) * len(tokens), text, StopReason.STOP_TOKEN)


@pytest.fixture
def compose(context):
    def composed(**reward):
        stage = TrainStage.model_validate(
            {"model": "lm", "prompts": "prompts.jsonl", "reward": reward}
        )
        return compose_reward(stage, context(), opened, None)[0]

    with ExitStack() as opened:
        yield composed


@pytest.fixture
def function(tmp_path):
    file = tmp_path / "rewards.py"
    file.write_text(
        "def words(prompt, completion):\n"
        "    while completion.text == 'loop':\n"
        "        pass\n"
        "    return len(completion.text.split())\n"
        "def gold(prompt, completion):\n"
        "    import tutelage.worlds.helpdesk.gold\n"
        "    return 1.0\n"
    )
    return lambda name: f"{file}:{name}"


def test_every_part_that_is_named_has_its_weight_and_its_name(compose, function):
    reward = compose(
        functions={function("words"): 0.5},
        format={"pattern": "[a-z ]+", "weight": 2.0},
        repetition={"size": 1, "weight": 3.0},
        length={"coefficient": 0.25, "threshold": 2},
    )
    fine, odd = reward([ASKED] * 2, [answer("so so"), answer("7", (9, 9, 9, 9))])
    assert fine.parts == {"words": 1.0, "format": 2.0, "repetition": 0.0, "length": -0.25}
    assert odd.parts == {"words": 0.5, "format": 0.0, "repetition": -2.25, "length": -0.5}
    assert odd.value == pytest.approx(-2.25)


def test_function_is_held_to_its_deadline(compose, function):
    reward = compose(functions={function("words"): 1.0}, deadlines={"item_seconds": 0.5})
    late, fine = reward([ASKED] * 2, [answer("loop"), answer("a b")])
    assert (late.status, late.notes) == (ScoreStatus.TIMEOUT, "words: words: no answer in 0.5 s")
    assert fine.value == 2.0


def test_expression_that_never_comes_to_an_end_is_held_to_it_too(compose):
    reward = compose(format={"pattern": "(a|a)*b"}, deadlines={"item_seconds": 0.5})
    late, fine = reward([ASKED] * 2, [answer("a" * 60), answer("aab")])
    assert late.status is ScoreStatus.TIMEOUT
    assert fine.value == 1.0


def test_answers_that_are_json(compose):
    reward = compose(format={"json_value": True})
    scores = reward([ASKED] * 2, [answer('{"a": 1}'), answer("Sure! {}")])
    assert [score.value for score in scores] == [1.0, 0.0]


def test_gold_is_out_of_reach_for_functions(compose, function):
    (score,) = compose(functions={function("gold"): 1.0})([ASKED], [answer("a")])
    assert score.status is ScoreStatus.ERROR
    assert "gold" in score.notes


def test_two_parts_of_one_name_are_refused(compose, function, tmp_path):
    other = tmp_path / "other.py"
    other.write_text("def words(prompt, completion):\n    return 0.0\n")
    with pytest.raises(ConfigError, match="two parts of the reward have the name 'words'"):
        compose(functions={function("words"): 1.0, f"{other}:words": 1.0})


def row(prompt: Prompt, *lengths: int):
    completions = [answer("", [5] * n).to_json() for n in lengths]
    for completion in completions:
        del completion["prompt_id"]
    return {**prompt.to_json(), "completions": completions}


def test_threshold_of_each_prompt_comes_from_the_references_answers(compose, write_rows):
    other = Prompt("q", (Message("user", "why?"),))
    samples = write_rows("samples.jsonl", [row(ASKED, 1, 2), row(other, 4, 6)])
    length = {"coefficient": 0.5, "threshold": "per_prompt"}
    reward = compose(reference_answers=samples, length=length)
    scores = reward([ASKED, other], [answer("", [5] * 8), answer("", [5] * 8)])
    assert [score.value for score in scores] == [-3.0, -1.0]


def test_file_without_tokens_is_named(compose, write_rows):
    samples = write_rows("texts.jsonl", [{**ASKED.to_json(), "completions": ["fine."]}])
    length = {"coefficient": 0.5, "threshold": "per_prompt"}
    with pytest.raises(DataError, match=r"texts\.jsonl: expected the completions of a sample"):
        compose(reference_answers=samples, length=length)


def test_service_without_a_token_or_out_of_reach_ends_the_stage_at_once(compose, monkeypatch):
    service = {"url": "http://127.0.0.1:1", "token_env": "TOKEN_OF_THE_TEST", "retries": 0}
    monkeypatch.delenv("TOKEN_OF_THE_TEST", raising=False)
    with pytest.raises(ConfigError, match="set TOKEN_OF_THE_TEST in the environment"):
        compose(remote={"facts": service})
    monkeypatch.setenv("TOKEN_OF_THE_TEST", "a token of sufficient length")
    with pytest.raises(RewardError, match=r"http://127\.0\.0\.1:1: Connect"):
        compose(remote={"facts": service})


def test_judge_is_a_part_like_any_other(compose):
    pytest.importorskip("openai")
    from tutelage.judging.fake import FakeEndpoint, prefers

    with FakeEndpoint(prefers(len)) as endpoint:
        judge = {"model": "fake", "url": endpoint.url, "weight": 2.0}
        reward = compose(judge=judge, length={"coefficient": 0.25, "threshold": 2})
        (score,) = reward([ASKED], [answer("x" * 10)])
    assert score.parts == pytest.approx({"judge": 2.0, "length": -0.25})
