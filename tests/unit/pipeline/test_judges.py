"""The judges that recipes name."""

from contextlib import ExitStack

import pytest

from tutelage.config import RewardConfig, TrainStage
from tutelage.errors import ConfigError
from tutelage.judging.fake import FakeEndpoint, prefers
from tutelage.pipeline.judges import named_judge
from tutelage.records import Comparison, Message, Prompt

PAIR = Comparison(Prompt("p", (Message("user", "?"),)), "longer answer", "short")


def test_yaml_file_is_a_judge_model(tmp_path):
    pytest.importorskip("openai")
    with FakeEndpoint(prefers(len)) as endpoint, ExitStack() as opened:
        file = tmp_path / "judge.yaml"
        file.write_text(f"model: fake\nurl: {endpoint.url}\n")
        judge = named_judge(str(file), "online_dpo.judge", opened)
        (p_a,) = judge([PAIR])
    assert p_a > 0.99


def test_python_function_is_a_judge(tmp_path):
    (tmp_path / "judges.py").write_text("def longer(comparisons):\n    return [0.25]\n")
    with ExitStack() as opened:
        judge = named_judge(f"{tmp_path / 'judges.py'}:longer", "online_dpo.judge", opened)
        assert judge([PAIR]) == [0.25]


def test_file_that_describes_no_judge_is_refused(tmp_path):
    (tmp_path / "judge.yaml").write_text("modell: fake\n")
    with ExitStack() as opened, pytest.raises(ConfigError, match="modell"):
        named_judge(str(tmp_path / "judge.yaml"), "online_dpo.judge", opened)


def train(**options) -> TrainStage:
    return TrainStage.model_validate({"model": "lm", "prompts": "prompts.jsonl"} | options)


def test_files_that_say_what_a_stage_does_are_part_of_it():
    judged = train(algorithm="online_dpo", online_dpo={"judge": "judge.yaml"})
    assert list(judged.files()) == [("online_dpo.judge", "judge.yaml")]
    reward = {
        "functions": {"rewards.py:words": 1.0},
        "judge": {"model": "m", "url": "http://127.0.0.1:1/v1", "rubric": "tone.txt"},
    }
    assert list(train(reward=reward).files()) == [
        ("reward.functions", "rewards.py"),
        ("reward.judge.rubric", "tone.txt"),
    ]
    reward["judge"]["rubric"] = "general"
    assert list(train(reward=reward).files()) == [("reward.functions", "rewards.py")]


def test_judge_in_this_process_is_a_reference():
    config = RewardConfig.model_validate({"judge": {"model": "sft"}})
    assert list(config.references()) == ["sft"]
    config = RewardConfig.model_validate({"judge": {"model": "m", "url": "http://127.0.0.1:1/v1"}})
    assert list(config.references()) == []


def test_references_to_be_taken_off_must_be_there():
    judge = {"model": "m", "url": "http://127.0.0.1:1/v1", "against_references": True}
    with pytest.raises(ValueError, match=r"judge\.against_references needs answers"):
        RewardConfig.model_validate({"judge": judge})
    RewardConfig.model_validate({"judge": judge, "reference_answers": "sample"})
