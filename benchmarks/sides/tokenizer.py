"""A tokenizer for random ids: every id is a word of its own, so text and ids say the same."""

from functools import cache
from typing import Any

from benchmarks.sides.shapes import END, PAD

__all__ = ["words_tokenizer"]


@cache
def words_tokenizer(vocabulary: int) -> Any:
    """`decode` joins words with spaces and `encode` gives the same ids back."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = {PAD: "<pad>", END: "<end>", 2: "<unk>"}
    table = {names.get(i, f"w{i}"): i for i in range(vocabulary)}
    core = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
