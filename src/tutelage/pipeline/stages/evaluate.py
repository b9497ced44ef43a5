"""Compares models on held-out prompts, and judges the probes taken during training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.config import EvaluateStage, Reference
from tutelage.data.jsonl import read_jsonl
from tutelage.data.loaders import load_prompts
from tutelage.errors import ConfigError
from tutelage.evaluation.compare import Answers, checkpoints, compare
from tutelage.evaluation.lexicon import LexiconRater
from tutelage.evaluation.rater import Answer, NoRater, Rater
from tutelage.evaluation.second_reward import SecondRewardRater
from tutelage.generation import LocalEngine
from tutelage.models import Policy, RewardModel
from tutelage.pipeline.context import StageContext
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
    completions = engine.generate(encoded, sampling_of(config.sampling, tokenizer))
    texts = [completion.text for completion in completions]
    return Answers(
        name=name,
        stage=config.models[name].split("/")[0],
        answers=[Answer(c.text, ended=not c.truncated) for c in completions],
        lengths=[len(c.tokens) for c in completions],
        divergence=sequence_kl(baseline, encoded, completions, cores=cores),
        proxy=proxy.score(prompts, texts, cores=cores) if proxy is not None else None,
    )


def _judge_probes(
    path: Path, stage: str, proxy: RewardModel | None, rater: Rater, seed: int
) -> list[dict[str, Any]]:
    rows = [row for _, row in read_jsonl(path)]
    scores = None
    if proxy is not None:
        prompts = [Prompt.from_json(row) for row in rows]
        scores = proxy.score(prompts, [row["text"] for row in rows])
    return checkpoints(stage.split("/")[0], rows, scores, rater, seed=seed)
