"""Stages that train one model on rows of text: pretrain, sft, reward.

weights, optimiser ─────────────────────────────────────── all the time
gradients, activations, logits of a micro-batch ────────── update
activations of held-out rows without gradients ─────────── evaluation
"""

from dataclasses import dataclass

from tutelage.config import LoRAConfig, OptimizerConfig, PretrainStage, RewardStage, SFTStage
from tutelage.config.training import BatchConfig
from tutelage.pipeline.plan.memory import (
    FLOAT,
    OPTIMIZER_STATE,
    Pass,
    adapter_weights,
    allocator_overhead,
    kept_activations,
    passing_activations,
    reading_logits,
    update_peak,
)
from tutelage.pipeline.plan.parts import ModelBytes, Phase, StagePlan
from tutelage.pipeline.plan.sizes import ModelSize
from tutelage.pipeline.plan.work import optimizer_work, training_work

__all__ = [
    "MicroBatches",
    "Trained",
    "model_bytes",
    "plan_pretrain",
    "plan_reward",
    "plan_sft",
    "trained_part",
    "update_phase",
]

_HELD_OUT_ROWS = 64
"""Rows in one pass of `perplexity` and of `margins`."""
_SCORED_TOKENS = 16_384
"""Tokens in one pass of `RewardModel.score`."""
_IMITATION_COPIES = 3.0
"""Logits' size: the softmax that is kept, and two gradients of it."""


@dataclass(frozen=True)
class MicroBatches:
    """How a minibatch of rows of the greatest length is cut."""

    count: int
    rows: int
    """In the largest of them."""
    length: int
    """Tokens of a row."""

    @classmethod
    def of(cls, batch: BatchConfig, rows: int, length: int) -> "MicroBatches":
        """Cuts `rows` rows of `length` tokens as `Learner` does."""
        fitting = max(1, batch.microbatch_tokens // max(1, length))
        return cls(-(-rows // fitting), min(rows, fitting), length)

    @property
    def tokens(self) -> int:
        """In the largest micro-batch."""
        return self.rows * self.length


@dataclass(frozen=True)
class Trained:
    """What is trained of a model, and in which format the rest is kept."""

    weights: int
    """That have gradients."""
    stored: int
    """Bytes of all weights."""


def trained_part(
    size: ModelSize, total: int, lora: LoRAConfig | None, compute: str, *, frozen: int = 0
) -> Trained:
    """All of a model, its upper blocks, or adapters on it.

    Args:
        size: of the model.
        total: weights of the model as it is used, with or without a head.
        lora: the section of that name, or None.
        compute: format of the products; frozen matrices below adapters are kept in it.
        frozen: lowest blocks that are not trained, the embeddings with them.
    """
    if lora is not None:
        adapters = adapter_weights(size, lora.rank, lora.targets)
        each = 2.0 if compute == "bfloat16" else float(FLOAT)
        if lora.quantise == "4bit":
            # Half a byte, and a float32 scale for each 64 weights.
            each = 0.5 + FLOAT / 64
        stored = FLOAT * (total - size.linear + adapters) + round(each * size.linear)
        return Trained(adapters, stored)
    if not frozen:
        return Trained(total, FLOAT * total)
    lower = size.linear * min(frozen, size.layers) // max(1, size.layers) + size.head
    return Trained(max(0, total - lower), FLOAT * total)


def model_bytes(
    role: str, size: ModelSize, total: int, trained: Trained, optimizer: OptimizerConfig
) -> ModelBytes:
    """A model under training."""
    return ModelBytes(
        role=role,
        source=size.source,
        parameters=total,
        weights=trained.stored,
        gradients=FLOAT * trained.weights,
        optimiser=OPTIMIZER_STATE[optimizer.algorithm] * trained.weights,
    )


def update_phase(
    passes: tuple[Pass, ...], gradients: int, logits: int, cut: MicroBatches, device: str
) -> Phase:
    """What exists while gradients are formed.

    Args:
        passes: whose activations are kept at the same time.
        gradients: bytes of all of them.
        logits: bytes of a chunk with all that is read from it.
        cut: the minibatch.
        device: cpu or cuda.
    """
    activations = sum(map(kept_activations, passes))
    peak = update_peak(gradients, activations, logits, cut.count)
    block = max(FLOAT * run.tokens * run.size.hidden for run in passes)
    overhead = allocator_overhead(activations + gradients, block, device)
    shown = min(gradients, peak)
    return Phase(
        "update",
        {
            "gradients": shown,
            "logits": min(logits, peak - shown),
            "activations": peak - shown - min(logits, peak - shown),
            "allocator": overhead,
        },
    )


def plan_pretrain(name: str, config: PretrainStage, size: ModelSize, device: str) -> StagePlan:
    """A new model on sequences of one length."""
    length = min(config.length, size.context)
    batch = BatchConfig(minibatch=config.rows)
    trained = Trained(size.parameters, FLOAT * size.parameters)
    return _language_model(
        name, config, size, trained, batch, config.rows, length, config.steps, device
    )


def plan_sft(name: str, config: SFTStage, size: ModelSize, device: str) -> StagePlan:
    """A model on conversations of at most `max_length` tokens."""
    length = min(config.max_length, size.context)
    lora = config.lora
    trained = trained_part(size, size.parameters, lora, config.precision.compute)
    rows = config.batch.minibatch
    units = None
    if config.limit is not None:
        training = max(1, config.limit - min(256, max(1, config.limit // 20)))
        rows = min(rows, max(1, config.limit))
        units = max(1, -(-round(config.epochs * training) // config.batch.minibatch))
    return _language_model(name, config, size, trained, config.batch, rows, length, units, device)


def _language_model(
    name: str,
    config: PretrainStage | SFTStage,
    size: ModelSize,
    trained: Trained,
    batch: BatchConfig,
    rows: int,
    length: int,
    units: int | None,
    device: str,
) -> StagePlan:
    compute = config.precision.compute
    cut = MicroBatches.of(batch, rows, length)
    model = model_bytes("policy", size, size.parameters, trained, config.optimizer)
    head_tokens = batch.head_tokens
    logits = reading_logits(size, cut.tokens, head_tokens, _IMITATION_COPIES)
    run = Pass(size, cut.tokens, compute, checkpointing=batch.gradient_checkpointing)
    held_out = _HELD_OUT_ROWS * length
    evaluation = {
        "activations": passing_activations(size, held_out),
        "logits": reading_logits(size, held_out, head_tokens, 2.0),
    }
    phases = [
        update_phase((run,), model.gradients, logits, cut, device),
        Phase("evaluation", evaluation),
    ]
    if trained.weights < size.parameters:
        phases.append(Phase("merging", {"merged weights": FLOAT * size.linear}))
    return StagePlan(
        name=name,
        kind=config.kind,
        models=(model,),
        phases=tuple(phases),
        unit="update",
        units=units,
        work=(
            *training_work(size, rows, length, length, compute, trained.weights, run.checkpointing),
            optimizer_work(trained.weights),
        ),
    )


def plan_reward(
    name: str, config: RewardStage, size: ModelSize, device: str, causal: bool = True
) -> StagePlan:
    """Two answers to a prompt in one row, in which the prompt stands once."""
    text = min(config.max_length, size.context)
    length = 2 * text if causal else text
    rows = config.batch.minibatch * (1 if causal else 2)
    cut = MicroBatches.of(config.batch, rows, length)
    compute = config.precision.compute
    total = size.backbone + size.hidden
    trained = trained_part(size, total, config.lora, compute)
    last = config.phases[-1]
    model = model_bytes("reward model", size, total, trained, last.optimizer)
    checkpointing = config.batch.gradient_checkpointing
    run = Pass(size, cut.tokens, compute, checkpointing=checkpointing)
    update = update_phase((run,), model.gradients, 0, cut, device)
    # Which token may see which: made as booleans, then as numbers that attention adds.
    mask = _mask(cut.rows, length)
    held_out = min(_HELD_OUT_ROWS, 64)
    phases = [
        Phase(update.name, {**update.parts, "attention mask": mask}),
        Phase(
            "evaluation",
            {
                "activations": passing_activations(size, held_out * length),
                "attention mask": _mask(held_out, length),
            },
        ),
        Phase("scoring", {"activations": passing_activations(size, max(_SCORED_TOKENS, text))}),
    ]
    return StagePlan(
        name=name,
        kind=config.kind,
        models=(model,),
        phases=tuple(phases),
        unit="update",
        work=(
            *training_work(size, rows, length, 0, compute, trained.weights, checkpointing),
            optimizer_work(trained.weights),
        ),
    )


def _mask(rows: int, length: int) -> int:
    return rows * length * length * (FLOAT + 2)
