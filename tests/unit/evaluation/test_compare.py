"""Models side by side: means, paired differences, samples to read."""

import json

import pytest

from tutelage.evaluation.compare import Answers, checkpoints, compare
from tutelage.evaluation.rater import Answer, Measure, NoRater
from tutelage.records import Message, Prompt

PROMPTS = [Prompt(str(i), (Message("user", f"question {i}"),)) for i in range(4)]


class Vowels:
    """Counts vowels; has no opinion on answers that were cut off."""

    measures = (Measure("vowels", "Vowels", "", "higher", "Vowels per answer.", "gold"),)

    def rate(self, prompts, answers):
        assert len(prompts) == len(answers)
        return {
            "vowels": [
                float(sum(letter in "aeiou" for letter in answer.text)) if answer.ended else None
                for answer in answers
            ]
        }


def answers(name: str, *texts: str, ended=(True,) * 4, proxy=None, kl=0.0) -> Answers:
    return Answers(
        name=name,
        stage=name,
        answers=[Answer(text, end) for text, end in zip(texts, ended, strict=True)],
        lengths=[len(text) for text in texts],
        divergence=[kl] * 4,
        proxy=proxy,
    )


@pytest.fixture
def record():
    before = answers("before", "a", "b", "ae", "xyz", proxy=[0.0, 1.0, 2.0, None])
    after = answers(
        "after",
        *("aei", "bae", "aeioo", "aaa"),
        ended=(True, True, True, False),
        proxy=[1.0, 2.0, 3.0, 9.0],
        kl=2.5,
    )
    return compare(PROMPTS, [before, after], Vowels(), show=2)


def test_each_model_has_its_means(record):
    before, after = (model["measures"] for model in record["models"])
    assert before["vowels"]["mean"] == (1 + 0 + 2 + 0) / 4
    assert after["vowels"]["mean"] == (3 + 2 + 5) / 3
    assert after["vowels"]["n"] == 3
    assert (before["proxy"]["mean"], after["proxy"]["mean"]) == (1.0, 3.75)
    assert (before["ended"]["mean"], after["ended"]["mean"]) == (1.0, 0.75)
    assert (before["length"]["mean"], after["length"]["mean"]) == (7 / 4, 14 / 4)
    assert after["kl"]["mean"] == 2.5


def test_differences_are_over_prompts_that_both_have(record):
    rows = {row["measure"]: row for row in record["differences"]}
    assert rows["vowels"]["mean"] == pytest.approx((2 + 2 + 3) / 3)
    assert rows["vowels"]["n"] == 3
    assert rows["proxy"]["mean"] == pytest.approx(1.0)
    assert rows["proxy"]["n"] == 3
    assert {row["baseline"] for row in rows.values()} == {"before"}
    assert rows["vowels"]["low"] <= rows["vowels"]["mean"] <= rows["vowels"]["high"]


def test_every_model_is_compared_with_every_one_before_it():
    models = [
        answers(name, *texts) for name, texts in zip("abc", ("aaaa", "abab", "bbbb"), strict=True)
    ]
    record = compare(PROMPTS, models, Vowels())
    found = {
        (row["model"], row["baseline"]): row["mean"]
        for row in record["differences"]
        if row["measure"] == "vowels"
    }
    assert found == {("b", "a"): -0.5, ("c", "a"): -1.0, ("c", "b"): -0.5}


def test_record_explains_its_measures_and_shows_samples(record):
    assert [measure["key"] for measure in record["measures"]] == [
        "proxy",
        "vowels",
        "length",
        "ended",
        "kl",
    ]
    assert len(record["samples"]) == 2
    sample = record["samples"][0]
    assert sample["prompt"] == [{"role": "user", "content": "question 0"}]
    assert sample["answers"]["after"] == {"text": "aei", "scores": {"proxy": 1.0, "vowels": 3.0}}
    assert record["histograms"]["length"]["after"] == [3, 3, 5, 3]
    json.dumps(record, allow_nan=False)


def test_without_rater_or_reward_model_the_rest_is_measured():
    record = compare(PROMPTS, [answers("only", "a", "b", "c", "d")], NoRater())
    assert [measure["key"] for measure in record["measures"]] == ["length", "ended", "kl"]
    assert record["differences"] == []


def test_probes_are_judged_step_by_step():
    def probe(step: int, text: str, ended: bool) -> dict:
        return {
            **PROMPTS[0].to_json(),
            "step": step,
            "text": text,
            "ended": ended,
            "length": len(text),
            "kl": 0.5 * step,
        }

    rows = [probe(0, "a", True), probe(0, "b", True), probe(8, "aei", True), probe(8, "o", False)]
    first, last = checkpoints("train", rows, [1.0, 2.0, 3.0, None], Vowels())
    assert (first["stage"], first["step"], last["step"]) == ("train", 0, 8)
    assert first["measures"]["vowels"]["mean"] == 0.5
    assert last["measures"]["vowels"]["mean"] == 3.0
    assert last["measures"]["proxy"]["n"] == 1
    assert last["measures"]["kl"]["mean"] == 4.0
    assert "proxy" not in checkpoints("train", rows, None, Vowels())[0]["measures"]
