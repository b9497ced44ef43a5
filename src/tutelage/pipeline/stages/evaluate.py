"""Compares models on held-out prompts, and judges the probes taken during training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.config import EvaluateStage, Reference
from tutelage.data.jsonl import read_jsonl
from tutelage.data.loaders import load_prompts
from tutelage.distributed import Cores
from tutelage.errors import ConfigError
from tutelage.evaluation.best_of_n import kl_best_of_n
from tutelage.evaluation.compare import Answers, checkpoints, compare
from tutelage.evaluation.lexicon import LexiconRater
from tutelage.evaluation.rater import Answer, NoRater, Rater
from tutelage.evaluation.second_reward import SecondRewardRater
from tutelage.generation import LocalEngine, Sampling
from tutelage.models import Policy, RewardModel
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.preparation import (
    encode,
    generator,
    load_policy,
    sampling_of,
    share_out,
)
from tutelage.records import Completion, EncodedPrompt, Prompt
from tutelage.rewards import ModelReward
from tutelage.trainers.best_of_n import BestOfNEngine
from tutelage.trainers.divergence import sequence_kl

__all__ = ["run"]


def run(config: EvaluateStage, context: StageContext) -> dict[str, float]:
    """Has every model answer the same prompts and writes evaluation.json."""
    if config.baseline not in config.models:
        raise ConfigError(
            f"baseline is {config.baseline!r}, expected one of models: {sorted(config.models)}"
        )
    rater = _rater(config, context)
    prompts = load_prompts(context.resolve(config.prompts, "test.jsonl"), config.limit)
    names = [config.baseline, *(name for name in config.models if name != config.baseline)]
    baseline, tokenizer = load_policy(
        context.resolve(config.models[config.baseline], "model"),
        temperature=config.sampling.temperature,
    )
    fitting = encode(context, tokenizer, prompts, config.max_prompt_tokens)
    prompts = [prompt.prompt for prompt in fitting]
    proxy = _frozen_reward(config.reward, context) if config.reward else None
    total = len(names) + len(config.best_of_n) + len(config.probes)
    answered: list[Answers] = []
    for name in names:
        context.progress.step(len(answered), total)
        answered.append(_answer(name, prompts, baseline, proxy, config, context))
    for name, n in config.best_of_n.items():
        context.progress.step(len(answered), total)
        answered.append(_best_of_n(name, n, prompts, baseline, proxy, config, context))
    record = compare(prompts, answered, rater, show=config.show, seed=context.seed)
    record["checkpoints"] = []
    for done, (_, reference) in enumerate(config.probes.items()):
        context.progress.step(len(answered) + done, total)
        path = context.resolve(reference, "probes.jsonl")
        record["checkpoints"] += _judge_probes(path, reference, proxy, rater, context.seed)
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
    engine, encoded, sampling = _sampler(config.models[name], prompts, config, context)
    completions = engine.generate(encoded, sampling)
    lengths = [len(completion.tokens) for completion in completions]
    return Answers(
        name=name,
        stage=_stage_of(config.models[name]),
        answers=_as_answers(completions),
        lengths=lengths,
        divergence=sequence_kl(baseline, encoded, completions, cores=engine.cores),
        proxy=_proxies(proxy, prompts, completions, engine.cores),
        drawn=lengths if config.best_of_n else None,
    )


def _best_of_n(
    name: str,
    n: int,
    prompts: Sequence[Prompt],
    baseline: Policy,
    proxy: RewardModel | None,
    config: EvaluateStage,
    context: StageContext,
) -> Answers:
    """The baseline's answers, each the best of n.

    KL(best of n || baseline) is known in advance: `kl_best_of_n`, the same for every answer.
    """
    assert proxy is not None, "the recipe is refused without it"
    reference = config.models[config.baseline]
    engine, encoded, sampling = _sampler(reference, prompts, config, context)
    reward = ModelReward(proxy, cores=engine.cores)
    chosen = BestOfNEngine(engine, reward, n).choose(encoded, sampling)
    completions = [each.best for each in chosen]
    return Answers(
        name=name,
        stage=_stage_of(reference),
        answers=_as_answers(completions),
        lengths=[len(completion.tokens) for completion in completions],
        divergence=[kl_best_of_n(n)] * len(completions),
        proxy=_proxies(proxy, prompts, completions, engine.cores),
        drawn=[each.num_tokens for each in chosen],
    )


def _sampler(
    reference: Reference,
    prompts: Sequence[Prompt],
    config: EvaluateStage,
    context: StageContext,
) -> tuple[LocalEngine, list[EncodedPrompt], Sampling]:
    """An engine that begins with the stage's seed, and what it is asked."""
    policy, tokenizer = load_policy(
        context.resolve(reference, "model"), temperature=config.sampling.temperature
    )
    engine = LocalEngine(
        policy,
        tokenizer,
        generator(context, policy.model.device),
        batch_size=config.sampling.batch_size,
        notify=context.progress.message,
        cores=share_out(context, policy.model),
    )
    return engine, encode(context, tokenizer, prompts), sampling_of(config.sampling, tokenizer)


def _stage_of(reference: Reference) -> str:
    return reference.partition("/")[0]


def _as_answers(completions: Sequence[Completion]) -> list[Answer]:
    return [Answer(each.text, ended=not each.truncated) for each in completions]


def _proxies(
    proxy: RewardModel | None,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    cores: Cores | None,
) -> list[float | None] | None:
    if proxy is None:
        return None
    return proxy.score(prompts, [completion.text for completion in completions], cores=cores)


def _judge_probes(
    path: Path, stage: str, proxy: RewardModel | None, rater: Rater, seed: int
) -> list[dict[str, Any]]:
    rows = [row for _, row in read_jsonl(path)]
    scores = None
    if proxy is not None:
        prompts = [Prompt.from_json(row) for row in rows]
        scores = proxy.score(prompts, [row["text"] for row in rows])
    return checkpoints(_stage_of(stage), rows, scores, rater, seed=seed)
