"""Stages that decode and train nothing: sample, select, evaluate."""

from tutelage.config import EvaluateStage, SampleStage, SamplingConfig, SelectStage
from tutelage.pipeline.plan.memory import (
    FLOAT,
    decoder_copy,
    passing_activations,
    reading_logits,
    rollout,
    rows_read,
)
from tutelage.pipeline.plan.parts import ModelBytes, Phase, StagePlan, Work
from tutelage.pipeline.plan.sizes import ModelSize
from tutelage.pipeline.plan.work import decoding_work, scoring_work

__all__ = ["plan_evaluate", "plan_sample", "plan_select"]

_HEAD_TOKENS = 2_048
"""Response tokens whose logits exist at a time, where no recipe says."""
_SCORED_TOKENS = 512
"""Tokens of prompt and answer that a reward model reads, where no recipe says."""
_COMPUTE = "float32"
"""Models that are only asked are asked in this format."""


def plan_sample(name: str, config: SampleStage, size: ModelSize) -> StagePlan:
    """Completions, batch by batch."""
    phase, work, batch = _decode(size, config.sampling, config.max_prompt_tokens, config.limit)
    units = None
    if config.limit is not None:
        units = -(-config.limit * config.sampling.samples_per_prompt // batch)
    return StagePlan(
        name=name,
        kind=config.kind,
        models=(_decoded("policy", size),),
        phases=(phase,),
        unit="batch",
        units=units,
        work=work,
    )


def plan_select(name: str, config: SelectStage, size: ModelSize) -> StagePlan:
    """Completions that exist already, scored batch by batch."""
    length = min(_SCORED_TOKENS, size.context)
    rows = rows_read(length)
    total = size.backbone + size.hidden
    units = None
    if config.limit is not None and config.best_of is not None:
        units = -(-config.limit * config.best_of // rows)
    return StagePlan(
        name=name,
        kind=config.kind,
        models=(ModelBytes("reward model", size.source, total, FLOAT * total),),
        phases=(Phase("scoring", {"activations": passing_activations(size, rows * length)}),),
        unit="batch",
        units=units,
        work=(scoring_work(size, rows, length, 0, _COMPUTE),),
    )


def plan_evaluate(
    name: str,
    config: EvaluateStage,
    sizes: dict[str, ModelSize],
    reward: ModelSize | None,
    judge: ModelSize | None,
) -> StagePlan:
    """The baseline stays; the models, itself among them, come one after the other.

    Args:
        name: of the stage.
        config: of the stage.
        sizes: of the models by their label.
        reward: of the model whose score is the proxy.
        judge: of the second reward model.
    """
    baseline = sizes[config.baseline]
    largest = max(sizes.values(), key=lambda size: size.parameters)
    models = [
        ModelBytes("baseline", baseline.source, baseline.parameters, FLOAT * baseline.parameters),
        _decoded("model", largest),
    ]
    for role, size in (("reward model", reward), ("judge", judge)):
        if size is not None:
            total = size.backbone + size.hidden
            models.append(ModelBytes(role, size.source, total, FLOAT * total))
    answer = min(config.sampling.max_tokens, baseline.context - 1)
    longest, turns = config.max_prompt_tokens, 1
    if config.environment is not None:
        # All but a conversation's last answer is the last answer's prompt.
        longest, turns = config.environment.max_tokens - answer, config.environment.max_turns
    phase, work, batch = _decode(largest, config.sampling, longest, config.limit)
    work *= turns
    length = min(longest, baseline.context - answer) + answer
    rows = rows_read(length)
    comparing = {
        "activations": passing_activations(baseline, rows * length),
        "logits": reading_logits(baseline, rows * answer, _HEAD_TOKENS, 2.0),
    }
    phases = [phase, Phase("comparing", comparing)]
    scorers = [size for size in (reward, judge) if size is not None]
    for size in scorers:
        phases.append(
            Phase("scoring", {"activations": passing_activations(size, rows_read(length) * length)})
        )
    work += (scoring_work(baseline, batch, length, answer, _COMPUTE),)
    work += tuple(scoring_work(size, batch, length, 0, _COMPUTE) for size in scorers)
    units = None
    if config.limit is not None:
        units = len(sizes) * -(-config.limit // batch)
    return StagePlan(
        name=name,
        kind=config.kind,
        models=tuple(models),
        phases=tuple(phases),
        unit="batch",
        units=units,
        work=work,
    )


def _decoded(role: str, size: ModelSize) -> ModelBytes:
    return ModelBytes(
        role,
        size.source,
        size.parameters,
        FLOAT * size.parameters,
        decoder=decoder_copy(size, _COMPUTE),
    )


def _decode(
    size: ModelSize, sampling: SamplingConfig, longest_prompt: int, limit: int | None
) -> tuple[Phase, tuple[Work, ...], int]:
    """The phase, its work, and the completions in a batch."""
    answer = min(sampling.max_tokens, size.context - 1)
    prompt = max(1, min(longest_prompt, size.context - answer))
    prompts = max(1, sampling.batch_size // sampling.samples_per_prompt)
    if limit is not None:
        prompts = min(prompts, limit)
    rows = prompts * sampling.samples_per_prompt
    cache, beside = rollout(size, prompts, rows, prompt, answer, _COMPUTE)
    work = decoding_work(size, prompts, rows, prompt, answer, rows, _COMPUTE)
    return Phase("rollout", {"KV cache": cache, "activations": beside}), work, rows
