"""What stages prepare alike: seeded generators, policies, encoded prompts, samplers, cards."""

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutelage.config import (
    BatchConfig,
    DPOStage,
    LoRAConfig,
    PrecisionConfig,
    SamplingConfig,
    SFTStage,
)
from tutelage.data.chat import encode_prompts, ensure_chat_template, stop_token_ids
from tutelage.distributed import Cores, cores_for
from tutelage.errors import ModelError
from tutelage.generation import LocalEngine, Sampling
from tutelage.models import (
    Adapter,
    Policy,
    WholeModel,
    four_bit,
    load_causal_lm,
    load_tokenizer,
    recompute_activations,
    save_model,
)
from tutelage.pipeline.context import StageContext
from tutelage.records import EncodedPrompt, Preference, Prompt
from tutelage.tracking.card import ModelCard, write_model_card
from tutelage.trainers.finite import FiniteGuard
from tutelage.trainers.learner import Learner
from tutelage.trainers.optimizer import Optimizer

__all__ = [
    "Speed",
    "add_adapter",
    "compute_dtype",
    "device",
    "encode",
    "generator",
    "held_out_prompts",
    "load_policy",
    "local_engine",
    "new_learner",
    "policy_to_train",
    "quantised",
    "sampling_of",
    "save_policy",
    "share_out",
    "trained_part",
]


def compute_dtype(precision: PrecisionConfig) -> torch.dtype:
    """The autocast format a recipe asks for."""
    return torch.bfloat16 if precision.compute == "bfloat16" else torch.float32


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def generator(context: StageContext, on: torch.device | str = "cpu") -> torch.Generator:
    """A generator of random numbers that the stage's seed determines."""
    return torch.Generator(device=on).manual_seed(context.seed)


def new_learner(
    context: StageContext,
    optimizers: Mapping[str, Optimizer],
    batch: BatchConfig,
    source: torch.Generator,
    cores: Cores | None = None,
) -> Learner:
    """A learner that tells the person who watches, and leaves evidence, when something is wrong."""
    return Learner(
        optimizers,
        batch,
        source,
        guard=FiniteGuard(context.evidence, notify=context.progress.message),
        notify=context.progress.message,
        cores=cores or Cores(),
    )


def share_out(
    context: StageContext, model: nn.Module, lora: LoRAConfig | None = None
) -> Cores | None:
    """As `cores_for`, and None for a model with adapters: those are switched on and off for all
    threads at once.
    """
    return cores_for(model, context.cores) if lora is None else None


def quantised(lora: LoRAConfig | None, compute: torch.dtype) -> dict[str, Any] | None:
    """How the weights below adapters are loaded; None as they are."""
    return four_bit(compute) if lora is not None and lora.quantise == "4bit" else None


def load_policy(
    path: Path,
    *,
    temperature: float = 1.0,
    compute: torch.dtype = torch.float32,
    head_tokens: int = BatchConfig().head_tokens,
    lora: LoRAConfig | None = None,
) -> tuple[Policy, PreTrainedTokenizerBase]:
    """A causal model as a policy, with its tokenizer; both fit for conversations.

    With `lora` the model is one that adapters can be put on: see `trained_part`.
    """
    tokenizer = load_tokenizer(path)
    model = load_causal_lm(path, quantised(lora, compute))
    added = ensure_chat_template(tokenizer)
    if added and lora is not None:
        raise ModelError(
            f"the tokenizer in {path} has no chat template, and the {added} tokens of the one it "
            "would get have no embeddings yet, which adapters do not train: start from a model "
            "with a chat template, or fine-tune once without lora"
        )
    if added:
        model.resize_token_embeddings(len(tokenizer))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ModelError(f"the tokenizer in {path} has neither a pad nor an eos token: set one")
    if model.device != device():
        model.to(device())  # type: ignore[arg-type]
    policy = Policy(model, temperature=temperature, compute=compute, head_tokens=head_tokens)
    return policy, tokenizer


def local_engine(
    path: Path, sampling: SamplingConfig, context: StageContext
) -> tuple[LocalEngine, PreTrainedTokenizerBase, torch.Generator]:
    """A sampler of a model that is not trained, with its tokenizer and its random numbers."""
    policy, tokenizer = load_policy(path, temperature=sampling.temperature)
    source = generator(context, policy.model.device)
    engine = LocalEngine(
        policy,
        tokenizer,
        source,
        batch_size=sampling.batch_size,
        notify=context.progress.message,
        cores=share_out(context, policy.model),
    )
    return engine, tokenizer, source


def policy_to_train(
    config: SFTStage | DPOStage, context: StageContext
) -> tuple[Policy, PreTrainedTokenizerBase, Adapter | WholeModel]:
    """A stage's model as a policy, its tokenizer, and the part of the model that is trained."""
    compute = compute_dtype(config.precision)
    policy, tokenizer = load_policy(
        context.resolve(config.model, "model"),
        compute=compute,
        head_tokens=config.batch.head_tokens,
        lora=config.lora,
    )
    part = trained_part(config.lora, policy.model, compute)
    if config.batch.gradient_checkpointing:
        recompute_activations(policy.model)
    return policy, tokenizer, part


def trained_part(
    lora: LoRAConfig | None,
    model: PreTrainedModel,
    compute: torch.dtype,
    frozen_layers: int = 0,
) -> Adapter | WholeModel:
    """What a stage trains: an adapter, put into the model, or all of its weights."""
    if lora is None:
        return WholeModel(model)
    return add_adapter(lora, model, compute, frozen_layers)


def add_adapter(
    lora: LoRAConfig,
    model: PreTrainedModel,
    compute: torch.dtype,
    frozen_layers: int = 0,
    name: str = "policy",
) -> Adapter:
    """An adapter as a recipe describes it, in the model from now on."""
    return Adapter(
        model,
        rank=lora.rank,
        alpha=lora.alpha,
        targets=lora.targets,
        frozen_layers=frozen_layers,
        name=name,
        compute=compute,
    )


def held_out_prompts(preferences: Sequence[Preference], share: float, seed: int) -> set[str]:
    """Ids of the prompts that are kept to measure by: one at least, unless the share is 0."""
    ids = sorted({row.comparison.prompt.id for row in preferences})
    random.Random(seed).shuffle(ids)
    return set(ids[: max(1, round(share * len(ids)))]) if share else set()


def save_policy(
    context: StageContext,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    description: str,
    training: Mapping[str, str],
) -> None:
    """Writes the model with its card to the stage's `model` folder."""
    folder = context.folder / "model"
    save_model(model, tokenizer, folder)
    write_model_card(folder, ModelCard(context.name, description, training=training))


def encode(
    context: StageContext,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_tokens: int | None = None,
) -> list[EncodedPrompt]:
    """Prompts as token ids; those that are too long are left out and reported."""
    encoded = encode_prompts(tokenizer, prompts, max_tokens)
    if encoded.num_too_long:
        context.progress.message(
            f"{encoded.num_too_long} of {len(prompts)} prompts exceed {max_tokens} tokens "
            "and are left out"
        )
    return [
        EncodedPrompt(prompt, tuple(ids))
        for prompt, ids in zip(encoded.prompts, encoded.ids, strict=True)
    ]


def sampling_of(config: SamplingConfig, tokenizer: PreTrainedTokenizerBase) -> Sampling:
    """A recipe's sampling settings with the tokenizer's stop tokens."""
    return Sampling(
        stop_tokens=stop_token_ids(tokenizer),
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        samples_per_prompt=config.samples_per_prompt,
    )


class Speed:
    """Tokens per second since the last reading."""

    def __init__(self) -> None:
        """Starts the clock."""
        self._then = time.perf_counter()

    def read(self, tokens: int) -> float:
        """Rate at which `tokens` were handled since the last call."""
        now = time.perf_counter()
        rate = tokens / max(1e-9, now - self._then)
        self._then = now
        return rate
