"""The tokenizer of one's own: what it guarantees whatever it was trained on."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tutelage.data.tokenizer import SPECIAL_TOKENS, single_token_id, train_tokenizer
from tutelage.errors import DataError, ModelError


def test_special_tokens_have_the_first_ids_and_pad_is_not_eos(
    bpe_tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert bpe_tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3]
    assert (bpe_tokenizer.pad_token_id, bpe_tokenizer.eos_token_id) == (0, 2)
    assert bpe_tokenizer.bos_token is None


def test_without_merges_every_byte_is_a_token(
    byte_tokenizer: PreTrainedTokenizerFast, byte_ids: Callable[[str], list[int]]
) -> None:
    text = "Héllo 12!\n\t🙂"
    assert byte_tokenizer(text)["input_ids"] == byte_ids(text)


@given(text=st.text())
def test_decoding_gives_back_every_text(bpe_tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert bpe_tokenizer.decode(bpe_tokenizer(text)["input_ids"]) == text


def test_frequent_labels_are_one_token_and_digits_stay_apart(
    bpe_tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = [single_token_id(bpe_tokenizer, label) for label in ("A", "B", "Yes", "No")]
    assert len(set(ids)) == 4
    assert len(bpe_tokenizer("1999")["input_ids"]) == 4
    with pytest.raises(ModelError, match=r"'Maybe' is \d tokens, expected one"):
        single_token_id(bpe_tokenizer, "Maybe")


def test_the_vocabulary_stays_within_its_size(bpe_tokenizer: PreTrainedTokenizerFast) -> None:
    assert 260 < len(bpe_tokenizer) <= 400


def test_training_twice_gives_the_same_tokenizer() -> None:
    texts = ["the order of the day", "the day after"] * 5
    first, second = (train_tokenizer(iter(texts), 300) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()


def test_further_special_tokens_come_after_ours() -> None:
    tokenizer = train_tokenizer(["text"], 262, ["<|tool|>", "<|pad|>"])
    assert tokenizer.convert_tokens_to_ids("<|tool|>") == 4


def test_a_saved_folder_loads_as_the_same_tokenizer(
    bpe_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    bpe_tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Yes, the order <|im_end|> 42 was sent.\n\n"
    conversation = [{"role": "user", "content": text}]
    assert loaded(text)["input_ids"] == bpe_tokenizer(text)["input_ids"]
    assert loaded.chat_template == bpe_tokenizer.chat_template
    assert loaded.special_tokens_map == bpe_tokenizer.special_tokens_map
    assert (
        loaded.apply_chat_template(conversation)["input_ids"]
        == bpe_tokenizer.apply_chat_template(conversation)["input_ids"]
    )


def test_a_vocabulary_smaller_than_the_bytes_is_refused() -> None:
    with pytest.raises(DataError, match=r"vocab_size 200 is too small: .* need 260"):
        train_tokenizer(["text"], 200)


def test_no_text_is_refused() -> None:
    with pytest.raises(DataError, match="no text"):
        train_tokenizer([], 300)
