"""A policy as a writer: what the engine is asked, and what becomes of texts that cannot be used."""

import pytest

from tutelage.data.chat import encode_prompt, stop_token_ids
from tutelage.errors import GenerationError
from tutelage.generation import FakeEngine, LocalWriter, Sampling
from tutelage.records import Message, Prompt


def say(text: str) -> tuple[Message, ...]:
    return (Message("system", "be brief"), Message("user", text))


@pytest.fixture
def writer(tiny_tokenizer):
    def build(script, *, max_tokens=8, max_prompt_tokens=40):
        stops = stop_token_ids(tiny_tokenizer)

        def tokens(prompt, sample):
            text = script(prompt)
            return [*tiny_tokenizer.encode(text, add_special_tokens=False), min(stops)]

        engine = FakeEngine(
            tokens, decode=lambda ids: tiny_tokenizer.decode(ids, skip_special_tokens=True)
        )
        sampling = Sampling(stops, max_tokens=max_tokens)
        return LocalWriter(
            engine, tiny_tokenizer, sampling, name="tiny", max_prompt_tokens=max_prompt_tokens
        )

    return build


def test_texts_come_back_in_the_order_of_the_conversations(writer):
    said = writer(lambda prompt: prompt.prompt.text + "!")([say("a"), say("bb"), say("c")])
    assert said == ["a!", "bb!", "c!"]


def test_engine_reads_the_conversation_as_the_chat_template_writes_it(writer, tiny_tokenizer):
    seen = []

    def script(prompt):
        seen.append(prompt.tokens)
        return "x"

    writer(script)([say("hello")])
    assert seen == [tuple(encode_prompt(tiny_tokenizer, Prompt("p", say("hello"))))]


def test_failures_take_their_own_places(writer):
    answers = {"cut": "this is far too long", "none": "", "fine": "ok"}
    said = writer(lambda prompt: answers[prompt.prompt.text])(
        [say("fine"), say("cut"), say("x" * 60), say("none"), say("fine")]
    )
    assert said[0] == said[4] == "ok"
    assert all(isinstance(each, GenerationError) for each in said[1:4])
    assert str(said[1]) == "cut off at 8 tokens"
    assert "tokens, 40 at most are read" in str(said[2])
    assert str(said[3]) == "nothing was written"


def test_nothing_that_fits_asks_no_engine(writer):
    def never(prompt):
        raise AssertionError("the engine was asked")

    (said,) = writer(never)([say("x" * 60)])
    assert isinstance(said, GenerationError)
