"""The models that are timed: shapes of known models with random weights of a fixed seed.

What a token costs depends on shapes, not on weights. Imports work in both environments.
"""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

__all__ = ["END", "FIRST_WORD", "PAD", "SHAPES", "causal_lm", "classifier", "weights"]

PAD, END = 0, 1
FIRST_WORD = 8
"""Smaller ids are special: prompts and answers consist of ids from here on."""

SHAPES: dict[str, dict[str, Any]] = {
    "micro": {
        "model_type": "llama",
        "vocab_size": 256,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
    },
    "micro qwen3": {
        "model_type": "qwen3",
        "vocab_size": 256,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "intermediate_size": 64,
    },
    "tiny": {
        "model_type": "llama",
        "vocab_size": 2048,
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 512,
    },
    "135M": {  # SmolLM2-135M
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
    },
    "0.6B": {  # Qwen3-0.6B
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
    },
    "1B": {  # Llama-3.2-1B
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
    },
}


def _config(shape: str, **others: int) -> Any:
    sizes = {**SHAPES[shape], **others}
    return AutoConfig.for_model(
        sizes.pop("model_type"),
        **sizes,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        eos_token_id=END,
        bos_token_id=None,
        # Wide enough that a wrong mask or position shows in the log-probabilities.
        initializer_range=0.02,
    )


def causal_lm(shape: str, seed: int, device: str = "cpu") -> Any:
    """A language model in float32."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(_config(shape)).to(device)


def classifier(shape: str, seed: int, device: str = "cpu", words_of: str | None = None) -> Any:
    """The same shape with one score instead of a vocabulary: reward and value models.

    It reads the vocabulary of the shape `words_of`, its own when absent.
    """
    torch.manual_seed(seed)
    config = _config(shape, num_labels=1, vocab_size=SHAPES[words_of or shape]["vocab_size"])
    return AutoModelForSequenceClassification.from_config(config).to(device)


def weights(shape: str) -> tuple[int, int]:
    """(weights in the layers' matrix products, weights of the head)."""
    s = SHAPES[shape]
    hidden, heads = s["hidden_size"], s["num_attention_heads"]
    size = s.get("head_dim", hidden // heads)
    attention = 2 * hidden * size * (heads + s["num_key_value_heads"])
    layer = attention + 3 * hidden * s["intermediate_size"]
    return layer * s["num_hidden_layers"], hidden * s["vocab_size"]
