"""Stages that train one model on rows of text: pretrain, sft, reward, dpo.

weights, optimiser ─────────────────────────────────────── all the time
gradients, activations, logits of a micro-batch ────────── update
activations of held-out rows without gradients ─────────── evaluation
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.config import (
    DPOStage,
    LoRAConfig,
    OptimizerConfig,
    PretrainStage,
    RewardStage,
    SFTStage,
)
from tutelage.config.training import PRETRAIN_TOKENS, BatchConfig
from tutelage.pipeline.plan.memory import (
    FLOAT,
    OPTIMIZER_STATE,
    Pass,
    adapter_weights,
    allocator_overhead,
    kept_activations,
    passing_activations,
    reading_logits,
    rows_read,
    update_peak,
)
from tutelage.pipeline.plan.parts import ModelBytes, Phase, Place, StagePlan, Work
from tutelage.pipeline.plan.rows import Rows, tokens_of
from tutelage.pipeline.plan.sizes import ModelSize
from tutelage.pipeline.plan.work import optimizer_work, training_work

__all__ = [
    "MicroBatches",
    "Trained",
    "merging_phase",
    "model_bytes",
    "plan_dpo",
    "plan_pretrain",
    "plan_reward",
    "plan_sft",
    "trained_part",
    "update_phase",
]

_STEPS_UNTIL_FACTS = 0.5
"""Share of the steps after which facts that documents mark are taken to be copied well enough."""
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
    size: ModelSize,
    total: int,
    lora: LoRAConfig | None,
    compute: str,
    device: str,
    *,
    frozen: int = 0,
) -> Trained:
    """All of a model, its upper blocks, or adapters on it.

    Args:
        size: of the model.
        total: weights of the model as it is used, with or without a head.
        lora: the section of that name, or None.
        compute: format of the products.
        device: cpu or cuda.
        frozen: lowest blocks that are not trained, the embeddings with them.
    """
    if lora is not None:
        adapters = adapter_weights(size, lora.rank, lora.targets)
        stored = FLOAT * (total - size.linear + adapters) + _frozen_bytes(
            size, lora, compute, device
        )
        return Trained(adapters, stored)
    if not frozen:
        return Trained(total, FLOAT * total)
    lower = size.linear * min(frozen, size.layers) // max(1, size.layers) + size.head
    return Trained(max(0, total - lower), FLOAT * total)


def _frozen_bytes(size: ModelSize, lora: LoRAConfig, compute: str, device: str) -> int:
    """Of the matrices below adapters."""
    if lora.quantise == "4bit":
        # Half a byte, and a float32 scale for each 64 weights.
        return size.linear // 2 + FLOAT * size.linear // 64
    if compute == "float32":
        return FLOAT * size.linear
    # On a CPU the file stays mapped as long as anything of it is used.
    return (2 + (FLOAT if device == "cpu" else 0)) * size.linear


def merging_phase(size: ModelSize, update: Phase) -> Phase:
    """Adapters are added to copies of the matrices, at the end.

    What the updates have left in the heap is still there.
    """
    left = update.bytes if update.parts["allocator"] else 0
    return Phase("merging", {"merged weights": FLOAT * size.linear, "allocator": left})


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
    passes: tuple[Pass, ...],
    gradients: int,
    logits: int,
    cut: MicroBatches,
    device: str,
    cores: int = 1,
) -> Phase:
    """What exists while gradients are formed.

    Args:
        passes: whose activations are kept at the same time.
        gradients: bytes of all of them.
        logits: bytes of a chunk with all that is read from it.
        cut: the minibatch.
        device: cpu or cuda.
        cores: that work on a micro-batch each.
    """
    together = min(cores, cut.count)
    activations = sum(map(kept_activations, passes))
    peak = update_peak(gradients, activations, logits, cut.count, cores)
    block = max(FLOAT * run.tokens * run.size.hidden for run in passes)
    overhead = allocator_overhead(together * (activations + gradients), block, device)
    shown, logits = min(gradients, peak), together * logits
    return Phase(
        "update",
        {
            "gradients": shown,
            "logits": min(logits, peak - shown),
            "activations": peak - shown - min(logits, peak - shown),
            "allocator": overhead,
        },
    )


@dataclass(frozen=True)
class _Rows:
    """The rows that a stage reads."""

    length: int
    """Tokens of the longest."""
    typical: float
    """Tokens of a typical one."""
    answer: float
    """Of these, tokens whose logits are needed."""
    minibatch: int
    held_out: int
    """In one pass of the evaluation."""
    units: int | None
    """Optimiser steps at most, where recipe or data tell."""
    expected: int | None = None
    """Steps that are likely, if fewer."""


def plan_pretrain(
    name: str, config: PretrainStage, size: ModelSize, place: Place, data: Rows
) -> StagePlan:
    """A new model on sequences of one length, or on conversations that mark facts."""
    length = min(config.length, size.context)
    typical, expected = float(length), None
    if data.has_facts:
        typical = sum(tokens_of(data, size.vocabulary, size.context, size.context))
        expected = max(1, round(_STEPS_UNTIL_FACTS * config.steps))
    longest = max(length, round(typical))
    rows = _Rows(longest, typical, typical, config.rows, rows_read(longest), config.steps, expected)
    trained = Trained(size.parameters, FLOAT * size.parameters)
    batch = BatchConfig(minibatch=config.rows, microbatch_tokens=PRETRAIN_TOKENS)
    return _language_model(name, config, size, trained, batch, rows, place)


def plan_sft(name: str, config: SFTStage, size: ModelSize, place: Place, data: Rows) -> StagePlan:
    """A model on conversations of at most `max_length` tokens."""
    compute = config.precision.compute
    trained = trained_part(size, size.parameters, config.lora, compute, place.kind)
    length, minibatch, units = min(config.max_length, size.context), config.batch.minibatch, None
    held_out, count = rows_read(length), _counted([data.count, config.limit])
    if count is not None:
        kept_back = min(256, max(1, count // 20))
        held_out = min(held_out, kept_back)
        units = _updates(config.epochs * max(1, count - kept_back), minibatch)
    prompt, answer = tokens_of(data, size.vocabulary, length // 2, length // 2)
    rows = _Rows(length, prompt + answer, answer, minibatch, held_out, units)
    return _language_model(name, config, size, trained, config.batch, rows, place)


def _counted(counts: Sequence[int | None]) -> int | None:
    """The least of those that are known."""
    known = [count for count in counts if count is not None]
    return min(known) if known else None


def _updates(rows: float, minibatch: int) -> int:
    return max(1, -(-round(rows) // minibatch))


def _language_model(
    name: str,
    config: PretrainStage | SFTStage | DPOStage,
    size: ModelSize,
    trained: Trained,
    batch: BatchConfig,
    rows: _Rows,
    place: Place,
) -> StagePlan:
    compute, adapted = config.precision.compute, trained.weights < size.parameters
    cut = MicroBatches.of(batch, rows.minibatch, rows.length)
    model = model_bytes("policy", size, size.parameters, trained, config.optimizer)
    logits = reading_logits(size, cut.tokens, batch.head_tokens, _IMITATION_COPIES)
    run = Pass(
        size,
        cut.tokens,
        compute,
        checkpointing=batch.gradient_checkpointing,
        adapted=adapted,
    )
    cores = place.sharing(size.parameters, adapted=adapted)
    update = update_phase((run,), model.gradients, logits, cut, place.kind, cores)
    held_out = rows.held_out * rows.length
    evaluation = {
        "activations": cores * passing_activations(size, held_out),
        "logits": cores * reading_logits(size, held_out, batch.head_tokens, 2.0),
    }
    merging = (merging_phase(size, update),) if adapted else ()

    def work(length: float, answer: float) -> tuple[Work, ...]:
        checkpointing, minibatch = run.checkpointing, rows.minibatch
        return training_work(
            size, minibatch, length, answer, compute, trained.weights, checkpointing
        )

    step = optimizer_work(trained.weights)
    return StagePlan(
        name=name,
        kind=config.kind,
        models=(model,),
        phases=(update, Phase("evaluation", evaluation), *merging),
        unit="update",
        units=rows.units,
        work=(*work(rows.length, rows.length), step),
        size=size,
        cores=cores,
        typical=(*work(rows.typical, rows.answer), step),
        expected=rows.expected,
    )


def plan_dpo(name: str, config: DPOStage, size: ModelSize, place: Place, data: Rows) -> StagePlan:
    """Two answers to a prompt side by side, each of at most `max_length` tokens with it."""
    compute = config.precision.compute
    trained = trained_part(size, size.parameters, config.lora, compute, place.kind)
    text, units = min(config.max_length, size.context), None
    if (count := _counted([data.count, config.limit])) is not None:
        training = max(1, round(count * (1 - config.held_out)))
        units = _updates(config.epochs * training, config.batch.minibatch)
    prompt, answer = tokens_of(data, size.vocabulary, text // 2, text // 2)
    rows = _Rows(
        2 * text,
        2 * (prompt + answer),
        2 * answer,
        config.batch.minibatch,
        rows_read(2 * text),
        units,
    )
    return _language_model(name, config, size, trained, config.batch, rows, place)


def plan_reward(
    name: str, config: RewardStage, size: ModelSize, place: Place, data: Sequence[Rows]
) -> StagePlan:
    """Two answers to a prompt in one row, in which the prompt, short at worst, stands once.

    Args:
        name: of the stage.
        config: of the stage.
        size: of the backbone.
        place: where.
        data: the comparisons of each phase.
    """
    text = min(config.max_length, size.context)
    length, minibatch = 2 * text, config.batch.minibatch
    cut = MicroBatches.of(config.batch, minibatch, length)
    compute, total = config.precision.compute, size.backbone + size.hidden
    trained = trained_part(size, total, config.lora, compute, place.kind)
    adapted = trained.weights < total
    model = model_bytes("reward model", size, total, trained, config.phases[-1].optimizer)
    checkpointing = config.batch.gradient_checkpointing
    run = Pass(size, cut.tokens, compute, checkpointing=checkpointing, adapted=adapted)
    cores = place.sharing(total, adapted=adapted)
    update = update_phase((run,), model.gradients, 0, cut, place.kind, cores)
    # Which token may see which: made as booleans, then as numbers that attention adds.
    update = Phase(
        update.name,
        {**update.parts, "attention mask": min(cores, cut.count) * _mask(cut.rows, length)},
    )
    evaluation = {
        "activations": cores * passing_activations(size, rows_read(length) * length),
        "attention mask": cores * _mask(rows_read(length), length),
    }
    pairs, typical = _compared_pairs(config, data, size, text)

    def work(length: float) -> tuple[Work, ...]:
        return training_work(size, minibatch, length, 0, compute, trained.weights, checkpointing)

    step = optimizer_work(trained.weights)
    return StagePlan(
        name=name,
        kind=config.kind,
        models=(model,),
        phases=(
            update,
            Phase("evaluation", evaluation),
            *_calibration(config, size, text, cores),
            *((merging_phase(size, update),) if adapted else ()),
        ),
        unit="update",
        units=None if pairs is None else config.trainings * _updates(pairs, minibatch),
        work=(*work(length), step),
        size=size,
        cores=cores,
        typical=(*work(typical), step),
    )


def _compared_pairs(
    config: RewardStage, data: Sequence[Rows], size: ModelSize, text: int
) -> tuple[float | None, float]:
    """Pairs in all phases, and the tokens of one; answers that several share are read once."""
    total: float | None = 0.0
    read = weight = 0.0
    for phase, rows in zip(config.phases, data, strict=True):
        prompt, answer = tokens_of(rows, size.vocabulary, text // 2, text // 2)
        count = _counted([rows.count, phase.limit])
        pairs = phase.epochs * (1.0 - config.held_out) * (1 if count is None else count)
        total = None if total is None or count is None else total + pairs
        read += pairs * (prompt + max(2.0, rows.answers) * answer) / rows.pairs
        weight += pairs
    return total, read / max(weight, 1e-9)


def _calibration(config: RewardStage, size: ModelSize, text: int, cores: int) -> tuple[Phase, ...]:
    """Samples are scored where the recipe asks for it."""
    if config.calibration is None:
        return ()
    tokens = rows_read(text) * text
    return (Phase("calibration", {"activations": cores * passing_activations(size, tokens)}),)


def _mask(rows: int, length: int) -> int:
    return rows * length * length * (FLOAT + 2)
