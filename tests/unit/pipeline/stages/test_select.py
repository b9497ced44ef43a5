"""Best of n as a stage: who wins, who may not, and what the winners are written as."""

import json

import pytest

from tutelage.config import SelectStage
from tutelage.data.loaders import load_demonstrations
from tutelage.errors import DataError
from tutelage.models import RewardModel
from tutelage.pipeline.stages import select
from tutelage.records import Message, Prompt


@pytest.fixture
def reward(tiny_recipe) -> str:
    return tiny_recipe.stages["train"].reward.model


def samples(count: int, *, prompts: int = 3, **changes):
    return [
        {
            "id": str(i),
            "prompt": [{"role": "user", "content": f"say {i}"}],
            "category": "small talk",
            "completions": [
                {"text": f"{i} {'ab'[k % 2] * (k + 1)}", "stop": "stop_token"} for k in range(count)
            ],
            **changes,
        }
        for i in range(prompts)
    ]


def best_by_hand(reward: str, rows, count: int) -> list[str]:
    """The highest score of each prompt's completions, scored one by one."""
    model = RewardModel.load(reward).eval()
    best = []
    for row in rows:
        prompt = Prompt(row["id"], (Message("user", row["prompt"][0]["content"]),))
        texts = [item["text"] for item in row["completions"][:count]]
        best.append(max(texts, key=lambda text: model.score([prompt], [text])[0]))
    return best


@pytest.mark.parametrize("best_of", [None, 3, 1])
def test_best_completion_becomes_a_demonstration(reward, write_rows, context, read_rows, best_of):
    rows = samples(5)
    where = context()
    stage = SelectStage(samples=write_rows("s.jsonl", rows), reward=reward, best_of=best_of)
    numbers = select.run(stage, where)
    written = load_demonstrations(where.folder / "sft.jsonl")
    assert [row.messages[-1].content for row in written] == best_by_hand(reward, rows, best_of or 5)
    assert [row.messages[0] for row in written] == [Message("user", f"say {i}") for i in range(3)]
    assert (written[0].id, written[0].category) == ("0", "small talk")
    assert numbers["best_of"] == (best_of or 5)
    curve = json.loads((where.folder / "best_of_n.json").read_text())
    assert [row["n"] for row in curve] == {None: [1, 2, 4, 5], 3: [1, 2, 3], 1: [1]}[best_of]
    scores = [row["score"] for row in curve]
    assert scores == sorted(scores)
    assert numbers["score_of_best"] == scores[-1]


def test_completions_that_are_cut_off_or_empty_never_win(reward, write_rows, context):
    rows = samples(4)
    best = best_by_hand(reward, rows, 4)
    for row in rows:
        for item in row["completions"]:
            if item["text"] == best[int(row["id"])]:
                item["stop"] = "length"
        row["completions"].append({"text": " ", "stop": "stop_token"})
    where = context()
    numbers = select.run(SelectStage(samples=write_rows("s.jsonl", rows), reward=reward), where)
    won = [row.messages[-1].content for row in load_demonstrations(where.folder / "sft.jsonl")]
    assert all(text.strip() for text in won)
    assert not set(won) & set(best)
    assert numbers["best_of"] == 3


def test_completions_that_no_demonstration_may_hold_never_win(reward, write_rows, context):
    rows = samples(3, prompts=1)
    best = best_by_hand(reward, rows, 3)[0]
    for item in rows[0]["completions"]:
        if item["text"] == best:
            item["text"] += "\x1b[2J"
    where = context()
    numbers = select.run(SelectStage(samples=write_rows("s.jsonl", rows), reward=reward), where)
    (written,) = load_demonstrations(where.folder / "sft.jsonl")
    assert written.messages[-1].content in [item["text"] for item in rows[0]["completions"]]
    assert "\x1b" not in written.messages[-1].content
    assert numbers["best_of"] == 2


def test_prompt_without_a_candidate_is_left_out(reward, write_rows, context):
    rows = samples(2)
    rows[1]["completions"] = [{"text": "unfinis", "stop": "length"}]
    where = context()
    numbers = select.run(SelectStage(samples=write_rows("s.jsonl", rows), reward=reward), where)
    assert (numbers["demonstrations"], numbers["left_out"]) == (2, 1)
    written = load_demonstrations(where.folder / "sft.jsonl")
    assert [row.id for row in written] == ["0", "2"]


def test_nothing_to_choose_is_an_error(reward, write_rows, context):
    rows = samples(1, completions=[{"text": "unfinis", "stop": "length"}])
    with pytest.raises(DataError, match=r"none of 3 prompts .* cut off by the token limit"):
        select.run(SelectStage(samples=write_rows("s.jsonl", rows), reward=reward), context())


def test_texts_to_be_continued_are_no_conversations(reward, write_rows, context):
    stage = SelectStage(
        samples=write_rows("s.jsonl", samples(2, mode="continuation")), reward=reward
    )
    with pytest.raises(DataError, match="prompt '0' is a text to be continued"):
        select.run(stage, context())
