"""A comparison is what it shows, not what it is called."""

from dataclasses import replace

from tutelage.feedback.identity import comparison_key, p_first
from tutelage.records import Comparison, Message, Preference, Prompt

PROMPT = Prompt("p", (Message("user", "Where is my order?"),))
COMPARISON = Comparison(PROMPT, "On its way.", "No idea.", "x")


def test_names_order_and_white_space_do_not_matter() -> None:
    key = comparison_key(COMPARISON)
    for same in (
        COMPARISON.swap(),
        replace(COMPARISON, id="y", prompt=replace(PROMPT, id="q", source="shop")),
        replace(COMPARISON, a="On  its\nway. "),
        replace(
            COMPARISON, prompt=replace(PROMPT, messages=(Message("user", "Where is  my order?"),))
        ),
    ):
        assert comparison_key(same) == key


def test_texts_do_matter() -> None:
    system = (Message("system", "Be brief."), *PROMPT.messages)
    keys = {
        comparison_key(each)
        for each in (
            COMPARISON,
            replace(COMPARISON, a="on its way."),
            replace(COMPARISON, b="No idea. On its way."),
            replace(COMPARISON, a="", b="On its way.No idea."),
            replace(COMPARISON, prompt=replace(PROMPT, messages=system)),
        )
    }
    assert len(keys) == 5


def test_a_judgement_names_the_same_answer_in_either_order() -> None:
    preference = Preference(COMPARISON, 0.75, "ann")
    # "No idea." comes before "On its way." in the order of characters.
    assert p_first(preference) == 0.25
    assert p_first(preference.swap()) == 0.25
