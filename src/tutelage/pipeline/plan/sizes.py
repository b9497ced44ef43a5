"""How many weights a model has, and of what shape, without loading any.

pretrain stage ──ModelShape───────────────> ModelSize      closed form, no torch
folder, hub ──config.json──meta device────> ModelSize      any architecture of transformers
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.config import ModelShape
from tutelage.errors import ModelError

__all__ = ["ModelSize", "count_model", "size_of_shape"]


@dataclass(frozen=True)
class ModelSize:
    """The numbers that bytes and operations follow from."""

    source: str
    """Stage, folder or hub name."""
    parameters: int
    """Weights of the language model; a head that is tied to the embeddings counts once."""
    linear: int
    """Weights of the matrices in the blocks, which each token is multiplied with."""
    vocabulary: int
    hidden: int
    layers: int
    mlp: int
    heads: int
    kv_heads: int
    head_size: int
    context: int
    """Longest sequence."""
    tied: bool
    """The head over the vocabulary is the embedding, or there is none."""
    fast: bool = True
    """Decoded from packed copies of its matrices; see `tutelage.models.decoder`."""
    normed_heads: bool = False
    """Queries and keys pass a norm of their own."""
    swiglu: bool = True
    """The feed-forward blocks keep less than others; see `tutelage.models.feed_forward`."""
    root_mean_square: bool = True
    """So do the norms; see `tutelage.models.norm`."""

    @property
    def head(self) -> int:
        """Weights of the head over the vocabulary, which the embedding has too."""
        return self.vocabulary * self.hidden

    @property
    def backbone(self) -> int:
        """Weights below any head."""
        return self.parameters - (0 if self.tied else self.head)

    @property
    def queries(self) -> int:
        """Width of the queries of a token."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of the keys of a token; its values have the same."""
        return self.kv_heads * self.head_size


def size_of_shape(source: str, shape: ModelShape) -> ModelSize:
    """The Llama that a pretrain stage makes, with the largest vocabulary that it allows."""
    hidden, mlp = shape.hidden_size, shape.mlp_size
    linear = shape.layers * (4 * hidden * hidden + 3 * hidden * mlp)
    norms = (2 * shape.layers + 1) * hidden
    return ModelSize(
        source=source,
        parameters=linear + norms + shape.vocabulary * hidden,
        linear=linear,
        vocabulary=shape.vocabulary,
        hidden=hidden,
        layers=shape.layers,
        mlp=mlp,
        heads=shape.heads,
        kv_heads=shape.heads,
        head_size=hidden // shape.heads,
        context=shape.context,
        tied=True,
    )


def count_model(source: str | Path) -> ModelSize:
    """Builds the model on torch's meta device, where tensors have shapes and no storage.

    Args:
        source: a model folder, or a name on a hub; only its config.json is read.

    Raises:
        ModelError: there is no such configuration, the hub cannot be reached, or transformers does
            not know the architecture.
    """
    path = Path(source)
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json: it is not a model folder")
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(source), trust_remote_code=False)
        return _measured(str(source), config, _on_meta_device(config))
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"the size of {source} is not known, because its config.json cannot be read: {first} "
            "Give a model folder, or a name on a hub that can be reached from here"
        ) from error


def _on_meta_device(config: Any) -> Any:
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    causal = type(config) in AutoModelForCausalLM._model_mapping
    is_classifier = any("SequenceClassification" in name for name in config.architectures or ())
    auto = AutoModelForCausalLM if causal and not is_classifier else AutoModel
    with torch.device("meta"):
        return auto.from_config(config, trust_remote_code=False)


def _measured(source: str, config: Any, model: Any) -> ModelSize:
    from tutelage.models.feed_forward import computes_swiglu
    from tutelage.models.norm import computes_root_mean_square

    text = config.get_text_config()
    base = model.base_model
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    others = {id(embedding)} | ({id(head.weight)} if head is not None else set())
    weights = {id(weight): weight for weight in model.parameters()}
    matrices = [w for w in base.parameters() if w.ndim >= 2 and id(w) not in others]
    hidden, heads = int(text.hidden_size), int(text.num_attention_heads)
    block = _first_block(base)
    attention = getattr(block, "self_attn", None)
    return ModelSize(
        source=source,
        parameters=sum(weight.numel() for weight in weights.values()),
        linear=sum(weight.numel() for weight in matrices),
        vocabulary=int(embedding.shape[0]),
        hidden=hidden,
        layers=int(text.num_hidden_layers),
        mlp=int(
            getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * hidden
        ),
        heads=heads,
        kv_heads=int(getattr(text, "num_key_value_heads", None) or heads),
        head_size=int(getattr(text, "head_dim", None) or hidden // heads),
        context=int(getattr(text, "max_position_embeddings", None) or 1 << 20),
        tied=head is None or head.weight is embedding,
        fast=_is_decoded_fast(text, block),
        normed_heads=hasattr(attention, "q_norm"),
        swiglu=hasattr(block, "mlp") and computes_swiglu(block.mlp),
        root_mean_square=hasattr(block, "input_layernorm")
        and computes_root_mean_square(block.input_layernorm),
    )


def _first_block(base: Any) -> Any:
    blocks = getattr(base, "layers", None)
    return blocks[0] if blocks is not None and len(blocks) else None


def _is_decoded_fast(config: Any, block: Any) -> bool:
    """Whether the parts are there that `tutelage.models.decoder` asks for."""
    attention, mlp = getattr(block, "self_attn", None), getattr(block, "mlp", None)
    parts = (
        (attention, ("q_proj", "k_proj", "v_proj", "o_proj")),
        (mlp, ("gate_proj", "up_proj", "down_proj")),
    )
    present = all(hasattr(module, name) for module, names in parts for name in names)
    return present and not getattr(config, "sliding_window", None)
