"""A tokenizer of one's own: byte-level BPE with the ChatML template.

Sennrich et al. 2016 (arXiv:1508.07909) on the bytes of UTF-8, as in GPT-2: no text is
unknown. Digits stay apart, so that numbers are spelt the same way everywhere.

    <|im_start|>user
    Hello<|im_end|>
    <|im_start|>assistant
    Hi!<|im_end|>                 trained on: "Hi!" and <|im_end|>
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from tutelage.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

__all__ = [
    "CHATML_TEMPLATE",
    "END_OF_TEXT",
    "END_OF_TURN",
    "PAD",
    "ROLES",
    "ROLE_TOKENS_TEMPLATE",
    "SPECIAL_TOKENS",
    "START_OF_TURN",
    "single_token_id",
    "train_tokenizer",
]

PAD = "<|pad|>"
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (PAD, START_OF_TURN, END_OF_TURN, END_OF_TEXT)
"""Ids 0 to 3. Padding is a token of its own, so that masking it cannot mask an end."""

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Marks with `generation` what the assistant writes: its text and the end of its turn."""

ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
"""One token per role, for `ROLE_TOKENS_TEMPLATE`."""

ROLE_TOKENS_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ ' ' + message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ ' ' + message['content'] + '<|im_end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Two tokens around a turn where ChatML has five, and a space before every word, the first one
included: what a small model needs to learn to copy from its prompt within minutes."""

_WORDS_AND_AMOUNTS = r" ?\$?\w+| ?[^\w\s]|\s+"
"""A word or an amount with the space before it, a punctuation mark, other white space."""


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str] = (),
    *,
    whole_numbers: bool = False,
    role_tokens: bool = False,
) -> "PreTrainedTokenizerFast":
    """Trains a byte-level BPE tokenizer.

    The end of a turn is its `eos_token`. It has no beginning-of-text token. Words that are
    frequent in the texts become one token each: labels such as `Yes` belong into them.

    Args:
        texts: the corpus; read once.
        vocab_size: at most this many tokens, special ones and the 256 bytes included.
        special_tokens: further ones, after `SPECIAL_TOKENS`.
        whole_numbers: let a frequent amount such as `$47` or `32gb` become one token, which a
            small model learns to copy far sooner. Otherwise each digit is a token of its own, as
            arithmetic wants it.
        role_tokens: one token per role and no line breaks (`ROLE_TOKENS_TEMPLATE`), not ChatML.

    Raises:
        DataError: the vocabulary cannot hold the bytes and special tokens, or there is no text.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    roles = ROLES if role_tokens else ()
    specials = list(dict.fromkeys((*SPECIAL_TOKENS, *roles, *special_tokens)))
    smallest = 256 + len(specials)
    if vocab_size < smallest:
        raise DataError(
            f"vocab_size {vocab_size} is too small: 256 bytes and {len(specials)} special tokens "
            f"need {smallest}"
        )
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS_AND_AMOUNTS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
        if whole_numbers
        else [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_not_empty(texts), trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END_OF_TURN,
        additional_special_tokens=[t for t in specials if t not in (PAD, END_OF_TURN)],
        chat_template=ROLE_TOKENS_TEMPLATE if role_tokens else CHATML_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _not_empty(texts: Iterable[str]) -> Iterator[str]:
    remaining = iter(texts)
    first = next(remaining, None)
    if first is None:
        raise DataError("there is no text to train a tokenizer on")
    return chain((first,), remaining)


def single_token_id(tokenizer: "PreTrainedTokenizerBase", text: str) -> int:
    """The id of a text that is one token, such as a judge's label `A` or `Yes`.

    Raises:
        ModelError: the tokenizer needs several tokens for it.
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise ModelError(f"{text!r} is {len(ids)} tokens, expected one: choose another label")
    return int(ids[0])
