import pytest

from tutelage.evaluation.rater import Answer, NoRater
from tutelage.evaluation.win_rate import WinRateRater
from tutelage.records import Message, Prompt

PROMPTS = [Prompt(f"p{i}", (Message("user", f"question {i}?"),)) for i in range(3)]


def answers(*texts: str) -> list[Answer]:
    return [Answer(text, True) for text in texts]


def longer(comparisons):
    """Sure of length, with a taste for the first place, and blind where an answer is empty."""
    return [
        None if not (c.a and c.b) else (0.9 if len(c.a) > len(c.b) else 0.3) for c in comparisons
    ]


def test_wins_are_averaged_over_both_orders():
    rater = WinRateRater(NoRater(), longer, PROMPTS, answers("aa", "bbbb", "cc"))
    found = rater.rate(PROMPTS, answers("aaa", "bb", "cc"))
    # Longer: (0.9 + 1 - 0.3) / 2; shorter: (0.3 + 1 - 0.9) / 2; the same text.
    assert found["win"] == pytest.approx([0.8, 0.2, 0.5])
    assert [measure.key for measure in rater.measures] == ["win"]


def test_baseline_against_itself_is_never_asked_about():
    def refuses(comparisons):
        assert not comparisons
        return []

    base = answers("aa", "bb", "cc")
    assert WinRateRater(NoRater(), refuses, PROMPTS, base).rate(PROMPTS, base)["win"] == [0.5] * 3


def test_what_the_judge_cannot_tell_has_no_value():
    rater = WinRateRater(NoRater(), longer, PROMPTS, answers("aa", "bb", "cc"))
    assert rater.rate(PROMPTS, answers("", "b", "ccc"))["win"] == [
        None,
        pytest.approx(0.2),
        pytest.approx(0.8),
    ]


def test_models_win_rates_add_up_to_one():
    one, other = answers("aa", "bbbb", "c"), answers("a", "bb", "ccc")
    forth = WinRateRater(NoRater(), longer, PROMPTS, one).rate(PROMPTS, other)["win"]
    back = WinRateRater(NoRater(), longer, PROMPTS, other).rate(PROMPTS, one)["win"]
    assert [a + b for a, b in zip(forth, back, strict=True)] == pytest.approx([1.0] * 3)
