"""Stages that decode or score and train nothing: sample, choose, select, evaluate."""

from dataclasses import dataclass, replace

from tutelage.config import (
    ChooseStage,
    ConstitutionStage,
    EvaluateStage,
    SampleStage,
    SamplingConfig,
    SelectStage,
)
from tutelage.pipeline.plan.memory import (
    FLOAT,
    decoder_copy,
    passing_activations,
    reading_logits,
    rollout,
    rows_read,
)
from tutelage.pipeline.plan.parts import ModelBytes, Phase, Place, StagePlan, Work
from tutelage.pipeline.plan.rows import Rows, tokens_of
from tutelage.pipeline.plan.sizes import ModelSize
from tutelage.pipeline.plan.work import decoding_work, scoring_work

__all__ = ["plan_choose", "plan_evaluate", "plan_sample", "plan_select", "plan_writing"]

_HEAD_TOKENS = 2_048
"""Response tokens whose logits exist at a time, where no recipe says."""
_SCORED_TOKENS = 512
"""Tokens of prompt and answer that a reward model reads, where no recipe says."""
_COMPUTE = "float32"
"""Models that are only asked are asked in this format."""


def plan_sample(
    name: str, config: SampleStage, size: ModelSize, place: Place, data: Rows
) -> StagePlan:
    """Completions, batch by batch."""
    # Four batches are handed over at a time, whose rows all cores can share.
    decoded = _decode(
        size, config.sampling, config.max_prompt_tokens, config.limit, place, data, batches=4
    )
    units, count = None, _limited(data, config.limit)
    if count is not None:
        units = -(-count * config.sampling.samples_per_prompt // decoded.batch)
    return StagePlan(
        name=name,
        kind=config.kind,
        models=(_decoded("policy", size),),
        phases=(decoded.phase,),
        unit="batch",
        units=units,
        work=decoded.work,
        size=size,
        cores=place.sharing(size.parameters),
        typical=decoded.typical,
    )


def plan_writing(name: str, config: ConstitutionStage, size: ModelSize, place: Place) -> StagePlan:
    """Critiques, revisions and verdicts: completions of conversations as long as is allowed.

    How many there are follows from the data and the failures, and is not foreseen.
    """
    assert config.model is not None, "other writers load no model"
    sample = SampleStage(
        model=config.model,
        prompts="",
        max_prompt_tokens=config.max_prompt_tokens,
        sampling=config.sampling,
    )
    return replace(plan_sample(name, sample, size, place, Rows()), kind=config.kind)


def plan_select(
    name: str, config: SelectStage, size: ModelSize, place: Place, data: Rows
) -> StagePlan:
    """Completions that exist already, scored batch by batch."""
    count = _limited(data, config.limit)
    answers = config.best_of or (round(data.answers) if data.answers > 1 else None)
    texts = None if count is None or answers is None else count * answers
    return _plan_scoring(name, config.kind, size, data, texts)


def plan_choose(
    name: str, config: ChooseStage, size: ModelSize, place: Place, data: Rows
) -> StagePlan:
    """The same, by one reward model after the other; by as many as are listed, at least."""
    count = _limited(data, config.limit)
    known = count is not None and data.answers > 1
    texts = round((count or 0) * data.answers) * len(config.reward) if known else None
    return _plan_scoring(name, config.kind, size, data, texts)


def _plan_scoring(
    name: str, kind: str, size: ModelSize, data: Rows, texts: int | None
) -> StagePlan:
    length = min(_SCORED_TOKENS, size.context)
    rows = rows_read(length)
    total = size.backbone + size.hidden
    units = None if texts is None else -(-texts // rows)
    prompt, answer = tokens_of(data, size.vocabulary, length // 2, length // 2)
    return StagePlan(
        name=name,
        kind=kind,
        models=(ModelBytes("reward model", size.source, total, FLOAT * total),),
        phases=(Phase("scoring", {"activations": passing_activations(size, rows * length)}),),
        unit="batch",
        units=units,
        work=(scoring_work(size, rows, length, 0, _COMPUTE),),
        size=size,
        typical=(scoring_work(size, rows, prompt + answer, 0, _COMPUTE),),
    )


def plan_evaluate(
    name: str,
    config: EvaluateStage,
    sizes: dict[str, ModelSize],
    reward: ModelSize | None,
    judge: ModelSize | None,
    place: Place,
    data: Rows,
) -> StagePlan:
    """The baseline stays; the models, itself among them, come one after the other.

    Args:
        name: of the stage.
        config: of the stage.
        sizes: of the models by their label.
        reward: of the model whose score is the proxy.
        judge: of the second reward model.
        place: where.
        data: the prompts.
    """
    cores = place.sharing(max(size.parameters for size in sizes.values()))
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
    decoded = _decode(largest, config.sampling, longest, config.limit, place, data, batches=4)
    length = min(longest, baseline.context - answer) + answer
    rows = rows_read(length)
    comparing = {
        "activations": cores * passing_activations(baseline, rows * length),
        "logits": cores * reading_logits(baseline, rows * answer, _HEAD_TOKENS, 2.0),
    }
    phases = [decoded.phase, Phase("comparing", comparing)]
    scorers = [size for size in (reward, judge) if size is not None]
    for size in scorers:
        read = cores * passing_activations(size, rows_read(length) * length)
        phases.append(Phase("scoring", {"activations": read}))

    def judging(prompt: float, answer: float) -> tuple[Work, ...]:
        read = prompt + answer
        return (
            scoring_work(baseline, decoded.batch, read, answer, _COMPUTE),
            *(scoring_work(each, decoded.batch, read, 0, _COMPUTE) for each in scorers),
        )

    units, count = None, _limited(data, config.limit)
    if count is not None:
        samples = len(sizes) + sum(config.best_of_n.values())
        units = samples * -(-count // decoded.batch)
    return StagePlan(
        name=name,
        kind=config.kind,
        models=tuple(models),
        phases=tuple(phases),
        unit="batch",
        units=units,
        work=(*decoded.work * turns, *judging(length - answer, answer)),
        size=largest,
        cores=cores,
        typical=(*decoded.typical * turns, *judging(*decoded.lengths)),
    )


def _limited(data: Rows, limit: int | None) -> int | None:
    """Prompts, where it is known how many there are."""
    known = [count for count in (data.count, limit) if count is not None]
    return min(known) if known else None


def _decoded(role: str, size: ModelSize) -> ModelBytes:
    return ModelBytes(
        role,
        size.source,
        size.parameters,
        FLOAT * size.parameters,
        decoder=decoder_copy(size, _COMPUTE),
    )


@dataclass(frozen=True)
class _Decoded:
    """A batch of completions."""

    phase: Phase
    batch: int
    """Completions in it."""
    work: tuple[Work, ...]
    """All as long as they may be."""
    typical: tuple[Work, ...]
    lengths: tuple[float, float]
    """Tokens of a typical prompt and answer."""


def _decode(
    size: ModelSize,
    sampling: SamplingConfig,
    longest_prompt: int,
    limit: int | None,
    place: Place,
    data: Rows,
    batches: int,
) -> _Decoded:
    answer = min(sampling.max_tokens, size.context - 1)
    prompt = max(1, min(longest_prompt, size.context - answer))
    prompts = max(1, sampling.batch_size // sampling.samples_per_prompt)
    if limit is not None:
        prompts = min(prompts, limit)
    rows = prompts * sampling.samples_per_prompt
    asked = batches * rows if limit is None else min(batches * rows, limit * rows // prompts)
    together = place.decoded_together(size.parameters, asked, sampling.batch_size)
    shares = place.shares(size.parameters, asked) * rows / asked
    read = max(1, together // sampling.samples_per_prompt)
    cache, beside = rollout(size, read, together, prompt, answer, _COMPUTE, place.kind)
    lengths = tokens_of(data, size.vocabulary, prompt, answer)
    return _Decoded(
        phase=Phase("rollout", {"KV cache": cache, "activations": beside}),
        batch=rows,
        work=decoding_work(size, prompts, rows, prompt, answer, rows, _COMPUTE, None, shares),
        typical=decoding_work(size, prompts, rows, *lengths, rows, _COMPUTE, answer, shares),
        lengths=lengths,
    )
