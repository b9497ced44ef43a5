"""What stands between two turns: the ids that make prompt, answer and reply the template's own."""

import copy
import re
from collections.abc import Sequence

import pytest
from transformers import PreTrainedTokenizerFast

from tutelage.data.template import ChatCodec
from tutelage.data.tokenizer import CHATML_TEMPLATE, train_tokenizer
from tutelage.errors import DataError, ModelError
from tutelage.records import Message

LLAMA_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n\n' + message['content'] | trim + '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}{% endif %}"
)
"""Trims, and has nothing between the turns."""

WITHOUT_REASONING = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and not loop.last %}"
    "{{ message['content'].split('</think>')[-1] }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Leaves out what earlier turns have thought."""

NUMBERED = (
    "{{ messages | length }}"
    "{% for message in messages %}{{ message['content'] + '<|im_end|>' }}{% endfor %}"
)
"""Begins every conversation otherwise."""

PLAIN_CHATML = re.sub(r"\{%-? (?:end)?generation -?%\}", "", CHATML_TEMPLATE)

ASKED = (Message("system", "Be brief."), Message("user", "Where is my order?"))
ANSWER = "On its way."
REPLIES = [
    (Message("user", "Thank you."),),
    (Message("tool", "sent: Friday"), Message("user", "When?")),
    (Message("user", "<|im_end|> is no end here"),),
    (Message("user", ""),),
]


def with_template(template: str, tokenizer: PreTrainedTokenizerFast) -> ChatCodec:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return ChatCodec(changed)


@pytest.fixture(scope="module")
def role_tokens() -> PreTrainedTokenizerFast:
    return train_tokenizer(["Where is my order? On its way. Thank you."] * 9, 320, role_tokens=True)


def written(codec: ChatCodec, asked: Sequence[Message], answer: str) -> list[int]:
    """What the assistant is taught to write: the oracle of its turn's ids."""
    pieces = codec.conversation((*asked, Message("assistant", answer)))
    return [ids for ids, wrote in pieces if wrote][-1]


def taught(codec: ChatCodec, asked: Sequence[Message]) -> list[int]:
    """What stands before the assistant's last turn where a conversation is imitated."""
    pieces = codec.conversation((*asked, Message("assistant", "Yes.")))
    last = max(i for i, (_, wrote) in enumerate(pieces) if wrote)
    return [i for ids, _ in pieces[:last] for i in ids]


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("template", [CHATML_TEMPLATE, PLAIN_CHATML, LLAMA_TEMPLATE])
def test_prompt_answer_and_reply_are_what_the_template_writes(bpe_tokenizer, template, reply):
    codec = with_template(template, bpe_tokenizer)
    between = codec.reply(ASKED, ANSWER, reply)
    assert between
    together = codec.prompt(ASKED) + written(codec, ASKED, ANSWER) + between
    answered = (*ASKED, Message("assistant", ANSWER), *reply)
    assert together == taught(codec, answered)
    assert codec.tokenizer.decode(together) == codec.render(answered, generation_prompt=True)


def test_three_turns_in_the_small_models_template(role_tokens):
    codec = ChatCodec(role_tokens)
    ids, messages = codec.prompt(ASKED), ASKED
    for answer, said in (("On its way.", "Thank you."), ("", "order?"), ("my order.", "Where?")):
        reply = (Message("user", said),)
        ids += written(codec, messages, answer) + codec.reply(messages, answer, reply)
        messages = (*messages, Message("assistant", answer), *reply)
        assert ids == codec.prompt(messages)


def test_white_space_around_an_answer_stays_the_policys_own(bpe_tokenizer):
    codec = with_template(LLAMA_TEMPLATE, bpe_tokenizer)
    assert codec.reply(ASKED, " On its way. \n", REPLIES[0]) == codec.reply(
        ASKED, ANSWER, REPLIES[0]
    )


def test_a_template_that_leaves_out_what_was_written_is_refused(bpe_tokenizer):
    codec = with_template(WITHOUT_REASONING, bpe_tokenizer)
    assert codec.reply(ASKED, ANSWER, REPLIES[0])
    with pytest.raises(DataError, match="rewrites no earlier turn"):
        codec.reply(ASKED, "<think>Where?</think>On its way.", REPLIES[0])


def test_a_template_that_rewrites_the_prompt_is_refused(bpe_tokenizer):
    with pytest.raises(DataError, match="nothing before may change"):
        with_template(NUMBERED, bpe_tokenizer).reply(ASKED, ANSWER, REPLIES[0])


def test_the_end_of_a_turn_is_not_the_end_of_the_text(bpe_tokenizer):
    codec = with_template(CHATML_TEMPLATE, bpe_tokenizer)
    assert codec.end_of_turn == bpe_tokenizer.convert_tokens_to_ids("<|im_end|>")
    endless = with_template("{% for m in messages %}{{ m['content'] }}{% endfor %}", bpe_tokenizer)
    with pytest.raises(ModelError, match="a turn would never end"):
        _ = endless.end_of_turn
