"""Data: reading and checking files, records out of them, conversations as token ids."""

from tutelage.data.chat import (
    IGNORED,
    EncodedDemonstrations,
    EncodedPrompts,
    encode_conversation,
    encode_conversations,
    encode_demonstration,
    encode_demonstrations,
    encode_prompt,
    encode_prompts,
    encode_text,
    encode_texts,
    ensure_chat_template,
    stop_token_ids,
)
from tutelage.data.jsonl import Fault, read_jsonl, write_jsonl
from tutelage.data.loaders import (
    LabelledText,
    Samples,
    load_demonstrations,
    load_labelled,
    load_preferences,
    load_prompts,
    load_samples,
    load_texts,
)
from tutelage.data.schema import Schema
from tutelage.data.tokenizer import CHATML_TEMPLATE, single_token_id, train_tokenizer
from tutelage.data.validate import FileSummary, Report, validate

__all__ = [
    "CHATML_TEMPLATE",
    "IGNORED",
    "EncodedDemonstrations",
    "EncodedPrompts",
    "Fault",
    "FileSummary",
    "LabelledText",
    "Report",
    "Samples",
    "Schema",
    "encode_conversation",
    "encode_conversations",
    "encode_demonstration",
    "encode_demonstrations",
    "encode_prompt",
    "encode_prompts",
    "encode_text",
    "encode_texts",
    "ensure_chat_template",
    "load_demonstrations",
    "load_labelled",
    "load_preferences",
    "load_prompts",
    "load_samples",
    "load_texts",
    "read_jsonl",
    "single_token_id",
    "stop_token_ids",
    "train_tokenizer",
    "validate",
    "write_jsonl",
]
