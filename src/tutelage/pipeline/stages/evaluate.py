"""Compares models on held-out prompts, and judges the probes taken during training."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tutelage.config import EvaluateStage, Reference
from tutelage.data.jsonl import read_jsonl
from tutelage.data.loaders import load_prompts
from tutelage.distributed import Cores
from tutelage.errors import ConfigError
from tutelage.evaluation.compare import Answers, checkpoints, compare
from tutelage.evaluation.conversation import ConversationRater
from tutelage.evaluation.lexicon import LexiconRater
from tutelage.evaluation.rater import Answer, NoRater, Rater
from tutelage.evaluation.second_reward import SecondRewardRater
from tutelage.generation import LocalEngine
from tutelage.models import Policy, RewardModel
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.conversation import conversing, scored_answers
from tutelage.pipeline.stages.preparation import (
    encode,
    generator,
    load_policy,
    sampling_of,
    share_out,
)
from tutelage.records import Prompt
from tutelage.trainers.divergence import sequence_kl

__all__ = ["run"]


def run(config: EvaluateStage, context: StageContext) -> dict[str, float]:
    """Has every model answer the same prompts and writes evaluation.json."""
    if config.baseline not in config.models:
        raise ConfigError(
            f"baseline is {config.baseline!r}, expected one of models: {sorted(config.models)}"
        )
    rater = _rater(config, context)
    if config.environment is not None:
        rater = ConversationRater(rater)
    prompts = load_prompts(context.resolve(config.prompts, "test.jsonl"), config.limit)
    names = [config.baseline, *(name for name in config.models if name != config.baseline)]
    baseline, tokenizer = load_policy(
        context.resolve(config.models[config.baseline], "model"),
        temperature=config.sampling.temperature,
    )
    fitting = encode(context, tokenizer, prompts, config.max_prompt_tokens)
    prompts = [prompt.prompt for prompt in fitting]
    proxy = _frozen_reward(config.reward, context) if config.reward else None
    total = len(names) + len(config.probes)
    answered: list[Answers] = []
    for done, name in enumerate(names):
        context.progress.step(done, total)
        answered.append(_answer(name, prompts, baseline, proxy, config, context))
    record = compare(prompts, answered, rater, show=config.show, seed=context.seed)
    record["checkpoints"] = []
    for done, (_, reference) in enumerate(config.probes.items()):
        context.progress.step(len(names) + done, total)
        path = context.resolve(reference, "probes.jsonl")
        record["checkpoints"] += _judge_probes(path, reference, proxy, rater, config, context.seed)
    context.progress.step(total, total)
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    (context.folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
    return {
        f"{model['name']}/{key}": model["measures"][key]["mean"]
        for model in record["models"]
        for key in model["measures"]
    }


def _rater(config: EvaluateStage, context: StageContext) -> Rater:
    if config.rater == "helpdesk":
        from tutelage.evaluation.helpdesk import HelpdeskRater

        return HelpdeskRater()
    if config.rater == "lexicon":
        return LexiconRater()
    if config.judge is not None:
        return SecondRewardRater(_frozen_reward(config.judge, context))
    return NoRater()


def _frozen_reward(reference: Reference, context: StageContext) -> RewardModel:
    model = RewardModel.load(context.resolve(reference, "model"))
    return model.eval().requires_grad_(False)


def _answer(
    name: str,
    prompts: Sequence[Prompt],
    baseline: Policy,
    proxy: RewardModel | None,
    config: EvaluateStage,
    context: StageContext,
) -> Answers:
    """One model's answers; every model draws from the same seed."""
    policy, tokenizer = load_policy(
        context.resolve(config.models[name], "model"), temperature=config.sampling.temperature
    )
    cores = share_out(context, policy.model)
    engine = LocalEngine(
        policy,
        tokenizer,
        generator(context, policy.model.device),
        batch_size=config.sampling.batch_size,
        notify=context.progress.message,
        cores=cores,
    )
    encoded = encode(context, tokenizer, prompts)
    talking = conversing(config.environment, engine, tokenizer, context.seed)
    completions = talking.generate(encoded, sampling_of(config.sampling, tokenizer))
    answers = [Answer(c.text, ended=not c.truncated, turns=c.turns) for c in completions]
    return Answers(
        name=name,
        stage=config.models[name].split("/")[0],
        answers=answers,
        lengths=[sum(c.written) for c in completions],
        divergence=sequence_kl(baseline, encoded, completions, cores=cores),
        proxy=None if proxy is None else _proxy(proxy, prompts, answers, config, cores),
    )


def _proxy(
    model: RewardModel,
    prompts: Sequence[Prompt],
    answers: Sequence[Answer],
    config: EvaluateStage,
    cores: Cores | None = None,
) -> list[float | None]:
    """The reward model's score of each answer; of a conversation, the mean over its answers."""
    asked = [
        scored_answers(config.environment, prompt, answer.text, answer.turns)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    flat = [pair for pairs in asked for pair in pairs]
    scores = iter(model.score([p for p, _ in flat], [text for _, text in flat], cores=cores))
    of_each = [[next(scores) for _ in pairs] for pairs in asked]
    return [
        None if None in row else fmean(score for score in row if score is not None)
        for row in of_each
    ]


def _judge_probes(
    path: Path,
    stage: str,
    proxy: RewardModel | None,
    rater: Rater,
    config: EvaluateStage,
    seed: int,
) -> list[dict[str, Any]]:
    rows = [row for _, row in read_jsonl(path)]
    scores = None
    if proxy is not None:
        prompts = [Prompt.from_json(row) for row in rows]
        scores = _proxy(proxy, prompts, [Answer.from_probe(row) for row in rows], config)
    return checkpoints(stage.split("/")[0], rows, scores, rater, seed=seed)
