"""Builds what a recipe's `reward` section describes.

RewardConfig ──> {"model": (1, ModelReward), "<function>": (weight, ...), ...} ──> Sum
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from tutelage.config import (
    FormatConfig,
    JudgeRewardConfig,
    LengthPenaltyConfig,
    RemoteRewardConfig,
    RewardConfig,
    RoundsConfig,
    TrainStage,
)
from tutelage.data import answer_format
from tutelage.data.jsonl import read_jsonl
from tutelage.distributed import Cores
from tutelage.errors import ConfigError, DataError
from tutelage.models import RewardModel, RewardScale
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.isolation import GOLD
from tutelage.pipeline.judges import open_judge
from tutelage.pipeline.stages.reward_ensemble import model_reward
from tutelage.pipeline.stages.reward_gate import check_gate
from tutelage.records import Completion, Prompt
from tutelage.rewards import (
    AgainstReferences,
    ConversationReward,
    FunctionProcess,
    JudgeReward,
    LengthPenalty,
    LengthPenaltyByPrompt,
    NoReward,
    ReferenceAnswers,
    RemoteLimits,
    RemoteReward,
    RepetitionPenalty,
    Reward,
    ScoreCache,
    Sum,
)
from tutelage.rewards.verifiers import VerifierReward, load_verifier, verifier_label

__all__ = ["compose_reward", "load_reward_model", "reward_function"]

_USUAL_SHARE = 0.9
"""Of the reference's answers to a prompt are no longer than what costs nothing."""


def load_reward_model(
    config: RewardConfig, context: StageContext, compute: torch.dtype
) -> RewardModel | None:
    """The frozen reward model, where the recipe names one."""
    if config.model is None:
        return None
    folder = context.resolve(config.model, "model")
    check_gate(config.gate, folder, config.model, context.progress.message)
    model = RewardModel.load(folder, compute=compute)
    return model.eval().requires_grad_(False)


def compose_reward(
    stage: TrainStage,
    context: StageContext,
    opened: ExitStack,
    model: RewardModel | None,
    cores: Cores | None = None,
    members: Sequence[RewardModel] = (),
) -> tuple[Reward, RoundsConfig]:
    """The composed reward, and the settings with their `auto` values filled in.

    Args:
        stage: what to compose.
        context: of the running stage.
        opened: closes the processes and connections of rewards when it is closed.
        model: the reward model, whose scale gives `auto` values.
        cores: that read texts.
        members: of the ensemble that scores in the model's place.
    """
    config, settings = stage.reward, stage.learner
    scale = model.scale if model is not None else RewardScale()
    scored = model_reward(config, model, members, cores) if model is not None else None
    parts = _parts(config, context, opened, model, scored)
    truncation = settings.truncation
    if truncation.value == "auto":
        # One sigma below the worst answer of the reference: no length can outbid it.
        truncation = truncation.model_copy(update={"value": scale.floor - 1.0})
    settings = settings.model_copy(update={"truncation": truncation})
    if stage.judge is not None:
        return NoReward(), settings
    if stage.environment is not None:
        return ConversationReward(Sum(parts) if parts else None, stage.environment.scored), settings
    return Sum(parts), settings


def _parts(
    config: RewardConfig,
    context: StageContext,
    opened: ExitStack,
    model: RewardModel | None,
    scored: Reward | None,
) -> dict[str, tuple[float, Reward]]:
    """The parts that a recipe names; `scored` is what the reward model or its ensemble pays."""
    parts: dict[str, tuple[float, Reward]] = {}
    references = _references(config, context)

    def add(name: str, weight: float, reward: Reward) -> None:
        if name in parts:
            raise ConfigError(
                f"two parts of the reward have the name {name!r}, under which the log would show "
                "one: rename a function, or a key of reward.remote"
            )
        parts[name] = (weight, reward)

    if scored is not None:
        par = config.shape == "par"
        add("model", 1.0, AgainstReferences(scored, references) if par else scored)
    for path, weight in config.functions.items():
        function = opened.enter_context(reward_function(path, config))
        add(function.name, weight, function)
    for name, weight in config.verifiers.items():
        add(verifier_label(name), weight, VerifierReward(load_verifier(name)))
    if config.format is not None:
        form = opened.enter_context(_format(config.format, config))
        add("format", config.format.weight, form)
    if config.repetition is not None:
        penalty = RepetitionPenalty(config.repetition.size)
        add("repetition", config.repetition.weight, penalty)
    for name, weight, asked in _asked(config, context, opened, references):
        add(name, weight, asked)
    if config.length is not None:
        add("length", 1.0, _length_penalty(config.length, model, references))
    return parts


def _references(config: RewardConfig, context: StageContext) -> ReferenceAnswers:
    """What the reference answers, where the recipe says so."""
    if config.reference_answers is None:
        return ReferenceAnswers([])
    path = context.resolve(config.reference_answers, "samples.jsonl")
    try:
        return ReferenceAnswers(
            [
                (
                    Prompt.from_json(row),
                    [
                        Completion.from_json({"prompt_id": row["id"], **c})
                        for c in row["completions"]
                    ],
                )
                for _, row in read_jsonl(path)
            ]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: expected the completions of a sample stage, with their tokens: {error!r}"
        ) from error


def reward_function(path: str, config: RewardConfig, **arguments: object) -> FunctionProcess:
    """A Python function in a process of its own, under the deadlines of the reward."""
    limits = config.deadlines
    return FunctionProcess(
        path,
        arguments=arguments,
        item_seconds=limits.item_seconds,
        batch_seconds=limits.batch_seconds,
        # What may not be seen here must not be seen in a process of ours.
        forbidden=[GOLD],
    )


def _format(config: FormatConfig, reward: RewardConfig) -> FunctionProcess:
    if config.pattern is None:
        return reward_function(f"{answer_format.__file__}:is_json", reward)
    return reward_function(f"{answer_format.__file__}:matches", reward, pattern=config.pattern)


def _remote(config: RemoteRewardConfig, context: StageContext) -> RemoteReward:
    """The service, which has been asked for its version."""
    token = os.environ.get(config.token_env)
    if not token:
        raise ConfigError(
            f"the reward service {config.url} needs a token: set {config.token_env} in the "
            "environment to the one it was started with"
        )
    limits = RemoteLimits(
        batch_size=config.batch_size,
        concurrency=config.concurrency,
        item_seconds=config.item_seconds,
        batch_seconds=config.batch_seconds,
        retries=config.retries,
    )
    reward = RemoteReward(
        config.url,
        token,
        limits=limits,
        version=config.version,
        cache=ScoreCache(Path(config.cache)) if config.cache else None,
        notify=context.progress.message,
    )
    reward.connect()
    context.progress.message(f"reward service {reward.url}: version {reward.version}")
    return reward


def _asked(
    config: RewardConfig, context: StageContext, opened: ExitStack, references: ReferenceAnswers
) -> Iterator[tuple[str, float, Reward]]:
    """Services and judges, with the names and weights of their parts."""
    for name, service in config.remote.items():
        yield name, service.weight, opened.enter_context(_remote(service, context))
    if config.judge is not None:
        judge = _judge(config.judge, context, opened, references)
        yield "judge", config.judge.weight, judge


def _judge(
    config: JudgeRewardConfig,
    context: StageContext,
    opened: ExitStack,
    references: ReferenceAnswers,
) -> JudgeReward:
    if config.url is None:
        folder = context.resolve(config.model, "model")
        config = config.model_copy(update={"model": str(folder)})
    judge = opened.enter_context(open_judge(config, context.progress.message))
    return JudgeReward(judge, references if config.against_references else None)


def _length_penalty(
    config: LengthPenaltyConfig, model: RewardModel | None, references: ReferenceAnswers
) -> Reward:
    """Its `auto` values come from what the reward model was measured to pay for length."""
    coefficient, threshold = config.coefficient, config.threshold
    if "auto" in (coefficient, threshold) and model is None:
        raise ConfigError(
            "reward.length is auto, which reads the reward model's measured slope, but "
            "reward.model is not set: give coefficient and threshold as numbers"
        )
    scale = model.scale if model is not None else RewardScale()
    paid = max(0.0, config.slope_factor * scale.length_slope)
    cost = paid if coefficient == "auto" else coefficient
    if threshold == "per_prompt":
        usual = round(scale.length_threshold)
        return LengthPenaltyByPrompt(cost, references, _USUAL_SHARE, usual)
    return LengthPenalty(cost, round(scale.length_threshold if threshold == "auto" else threshold))
