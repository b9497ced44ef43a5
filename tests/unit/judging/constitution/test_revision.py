"""Critique and revision: what is asked, in which order, and what becomes of failures."""

import re
from collections import Counter

import pytest

from tutelage.errors import GenerationError
from tutelage.judging.constitution import Transcript, answer_prompts, revise
from tutelage.records import Message, Prompt

PROMPTS = [Prompt(f"p{i}", (Message("user", f"question {i}?"),), category="c") for i in range(3)]
FIRST = [Transcript(prompt, f"answer {prompt.id}") for prompt in PROMPTS]


def numbered(messages) -> str:
    """A critique names what it was asked about; a revision appends a mark to the answer."""
    request = messages[-1].content
    if request.startswith("critique"):
        return f"fault of {messages[-2].content}"
    return messages[-4].content + "+"


def test_every_text_of_two_rounds_is_kept_in_order(scripted, constitution):
    writer = scripted(numbered)
    (done,) = revise(writer, constitution(only=1), FIRST[:1], rounds=2, seed=0)
    assert [(each.principle, each.critique, each.text) for each in done.revisions] == [
        ("only", "fault of answer p0", "answer p0+"),
        ("only", "fault of answer p0+", "answer p0++"),
    ]
    assert (done.answer, done.text, done.failure) == ("answer p0", "answer p0++", "")


def test_writer_reads_preamble_conversation_answer_and_request(scripted, constitution):
    writer = scripted(numbered)
    prompt = Prompt("p", (Message("system", "Be brief."), Message("user", "why?")))
    revise(
        writer, constitution("You check.", only=1), [Transcript(prompt, "so.")], rounds=1, seed=0
    )
    first, second = writer.asked
    assert [(each.role, each.content) for each in first] == [
        ("system", "You check.\n\nBe brief."),
        ("user", "why?"),
        ("assistant", "so."),
        ("user", "critique for only"),
    ]
    assert second[:4] == first
    assert second[4] == Message("assistant", "fault of so.")
    assert second[5].role == "user"
    assert second[5].content.startswith("revise for only")
    assert len(second) == 6


def test_demonstration_is_the_prompt_with_the_last_revision(scripted, constitution):
    (done,) = revise(scripted(numbered), constitution(only=1), FIRST[:1], rounds=3, seed=0)
    shown = done.demonstration()
    assert shown.messages == (*PROMPTS[0].messages, Message("assistant", "answer p0+++"))
    assert (shown.id, shown.category) == ("p0", "c")


def test_principles_depend_on_seed_and_prompt_but_not_on_the_batch(scripted, constitution):
    found = constitution(a=1, b=1, c=1, d=1, e=1)

    def drawn(transcripts, seed):
        done = revise(scripted(numbered), found, transcripts, rounds=3, seed=seed)
        return {each.prompt.id: [r.principle for r in each.revisions] for each in done}

    together = drawn(FIRST, 0)
    alone = {}
    for each in reversed(FIRST):
        alone |= drawn([each], 0)
    assert together == alone
    assert drawn(FIRST, 0) != drawn(FIRST, 1)
    assert len({tuple(names) for names in together.values()}) > 1


def test_no_principle_comes_twice_before_all_have_come(scripted, constitution):
    (done,) = revise(scripted(numbered), constitution(a=9, b=1, c=1), FIRST[:1], rounds=7, seed=0)
    names = [each.principle for each in done.revisions]
    assert set(names[:3]) == set(names[3:6]) == {"a", "b", "c"}
    assert names[:3] == names[3:6]
    assert names[6] == names[0]


@pytest.mark.parametrize("stage", ["critique", "revise"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GenerationError("the line broke"), "the line broke"),
        ("  \n ", "nothing was written"),
        ("bell \x07", r"holds control characters \(U\+0007\)"),
    ],
)
def test_failure_ends_its_own_transcript_and_no_other(scripted, constitution, stage, text, reason):
    def script(messages):
        odd = messages[-1].content.startswith(stage) and "question 1?" in messages[0].content
        return text if odd else numbered(messages)

    writer = scripted(script)
    done = revise(writer, constitution(only=1), FIRST, rounds=2, seed=0)
    assert [bool(each.failure) for each in done] == [False, True, False]
    name = "critique" if stage == "critique" else "revision"
    assert re.fullmatch(rf"{name} 1 \(only\): .*{reason}", done[1].failure)
    assert done[1].revisions == ()
    assert [len(each.revisions) for each in done] == [2, 0, 2]
    asked = Counter(messages[0].content for messages in writer.asked)
    assert asked["question 0?"] == 4
    assert asked["question 1?"] == (1 if stage == "critique" else 2)


def test_failed_first_answer_is_passed_through(scripted, constitution):
    failed = Transcript(PROMPTS[0], "", failure="first answer: no")
    writer = scripted(numbered)
    assert revise(writer, constitution(only=1), [failed], rounds=2, seed=0) == [failed]
    assert writer.asked == []


def test_writer_that_loses_a_text_is_an_error(constitution):
    class Forgetful:
        name = "forgetful"

        def __call__(self, conversations):
            return ["text"] * (len(conversations) - 1)

    with pytest.raises(GenerationError, match="forgetful wrote 2 texts for 3 conversations"):
        revise(Forgetful(), constitution(only=1), FIRST, rounds=1, seed=0)


def test_first_answers_are_written_without_the_constitution(scripted):
    def script(messages):
        return GenerationError("no") if "1" in messages[-1].content else messages[-1].content[:8]

    writer = scripted(script)
    first = answer_prompts(writer, PROMPTS)
    assert writer.asked == [prompt.messages for prompt in PROMPTS]
    assert [each.answer for each in first] == ["question", "", "question"]
    assert [each.failure for each in first] == ["", "first answer: no", ""]


def test_transcript_survives_json(scripted, constitution):
    (done,) = revise(scripted(numbered), constitution(a=1, b=1), FIRST[:1], rounds=2, seed=0)
    assert Transcript.from_json(done.to_json()) == done
    failed = Transcript(PROMPTS[1], "x", failure="critique 1 (a): no")
    assert Transcript.from_json(failed.to_json()) == failed


def test_white_space_is_no_change():
    prompt = PROMPTS[0]
    row = Transcript(prompt, "a  b").to_json()
    row["revisions"] = [{"principle": "x", "critique": "y", "revision": "a b"}]
    assert not Transcript.from_json(row).changed
    row["revisions"][0]["revision"] = "a c"
    assert Transcript.from_json(row).changed
