"""Models from folders and hubs, prepared for training, and back to folders.

Only safetensors weights and code that ships with transformers are loaded: a folder that
wants to run its own code is refused.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tutelage.errors import MissingExtraError, ModelError

__all__ = [
    "disable_dropout",
    "forbid_low_precision_weights",
    "four_bit",
    "freeze",
    "load_causal_lm",
    "load_sequence_classifier",
    "load_tokenizer",
    "new_llama",
    "save_model",
]


def disable_dropout(model: nn.Module) -> None:
    """Sets every dropout probability of a model to 0, modules and functional ones alike.

    With dropout left on, most tokens are outside the clip range before any update.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    config = getattr(model, "config", None)
    for name, value in vars(config).items() if config is not None else ():
        if ("drop" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)


def freeze(model: nn.Module) -> None:
    """Puts a model in evaluation mode and takes its gradients away."""
    model.eval()
    model.requires_grad_(False)


def forbid_low_precision_weights(model: nn.Module) -> None:
    """Refuses trainable weights below float32: AdamW's updates would be rounded away."""
    for name, weight in model.named_parameters():
        if weight.requires_grad and weight.dtype in (torch.bfloat16, torch.float16):
            raise ModelError(
                f"{name} is trainable and {weight.dtype}, expected float32 master weights: load "
                "the model in float32 and set precision.compute to bfloat16"
            )


def _existing(source: str | Path, needed: str) -> str:
    path = Path(source)
    if path.is_dir():
        if not (path / needed).is_file():
            raise ModelError(f"{path} has no {needed}: it is not a model folder")
    elif path.exists() or path.is_absolute() or len(path.parts) > 2:
        raise ModelError(f"{source} is no folder: expected a model folder or a name on a hub")
    return str(source)


def _load(auto: Any, source: str | Path, needed: str, **options: Any) -> Any:
    name = _existing(source, needed)
    try:
        return auto.from_pretrained(name, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(f"cannot load a model from {source}: {first}") from error


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder."""
    return cast(PreTrainedTokenizerBase, _load(AutoTokenizer, source, "tokenizer_config.json"))


def _prepared(model: PreTrainedModel) -> PreTrainedModel:
    disable_dropout(model)
    model.config.use_cache = False
    return model


def four_bit(compute: torch.dtype) -> dict[str, Any]:
    """Loading options for frozen 4-bit weights below adapters.

    NormalFloat with double quantisation (QLoRA, Dettmers et al. 2023, arXiv:2305.14314). Heads,
    embeddings and norms stay float32.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        ModelError: there is no CUDA GPU.
    """
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", "qlora")
    if not torch.cuda.is_available():
        raise ModelError(
            "lora.quantise is 4bit and there is no CUDA GPU, which 4-bit weights need: set it to "
            "none"
        )
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=["lm_head", "score", "classifier"],
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def load_causal_lm(
    source: str | Path, quantised: Mapping[str, Any] | None = None
) -> PreTrainedModel:
    """A causal language model in float32, or as `four_bit` says; dropout off."""
    options = {"dtype": torch.float32, "use_safetensors": True, **(quantised or {})}
    model = _load(AutoModelForCausalLM, source, "config.json", **options)
    return _prepared(cast(PreTrainedModel, model))


def load_sequence_classifier(
    source: str | Path, pad: int | None, quantised: Mapping[str, Any] | None = None
) -> PreTrainedModel:
    """A model with one score per text, in float32, dropout off.

    A causal model's folder gives its backbone with a new score head of standard deviation
    1 / sqrt(d + 1) and, where it has one, bias 0 (Stiennon et al. 2020, as corrected by
    Huang et al. 2024, arXiv:2403.17031).

    Args:
        source: model folder or hub name.
        pad: id of the tokenizer's pad token.
        quantised: options from `four_bit`.

    Raises:
        ModelError: the folder holds no such model, or a classifier that was trained with
            another pad token.
    """
    config = _load(AutoConfig, source, "config.json")
    was_classifier = any("SequenceClassification" in name for name in config.architectures or ())
    model = cast(
        PreTrainedModel,
        _load(
            AutoModelForSequenceClassification,
            source,
            "config.json",
            num_labels=1,
            dtype=torch.float32,
            use_safetensors=True,
            **(quantised or {}),
        ),
    )
    if was_classifier and pad is not None and config.pad_token_id not in (None, pad):
        raise ModelError(
            f"the reward model in {source} was trained with pad_token_id {config.pad_token_id}, "
            f"its tokenizer pads with {pad}: they must agree; correct the one that is wrong in "
            "config.json or tokenizer_config.json"
        )
    if pad is not None:
        model.config.pad_token_id = pad
    if not was_classifier:
        _initialise_head(model)
    return _prepared(model)


def _initialise_head(model: PreTrainedModel) -> None:
    head = next(
        (getattr(model, name) for name in ("score", "classifier") if hasattr(model, name)), None
    )
    if isinstance(head, nn.Linear):
        nn.init.normal_(head.weight, std=1.0 / (head.in_features + 1) ** 0.5)
        if head.bias is not None:
            nn.init.zeros_(head.bias)


def new_llama(
    tokenizer: PreTrainedTokenizerBase,
    *,
    hidden_size: int,
    layers: int,
    heads: int,
    mlp_size: int,
    context: int,
) -> PreTrainedModel:
    """A small Llama with random weights and tied embeddings, for the given tokenizer."""
    if hidden_size % heads:
        raise ModelError(
            f"hidden_size {hidden_size} is not divisible by {heads} heads: "
            f"use {hidden_size // heads * heads} or another number of heads"
        )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=mlp_size,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _prepared(LlamaForCausalLM(config))


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path
) -> None:
    """Writes weights as safetensors with configuration and tokenizer beside them."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
