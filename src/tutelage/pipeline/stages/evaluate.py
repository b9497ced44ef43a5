"""Compares models on held-out prompts, and judges the probes taken during training."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import Any

from tutelage.config import EvaluateStage, Reference
from tutelage.data.jsonl import read_jsonl
from tutelage.data.loaders import load_prompts
from tutelage.distributed import Cores
from tutelage.errors import ConfigError
from tutelage.evaluation.best_of_n import kl_best_of_n
from tutelage.evaluation.compare import Answers, checkpoints, compare
from tutelage.evaluation.conversation import ConversationRater
from tutelage.evaluation.lexicon import LexiconRater
from tutelage.evaluation.rater import Answer, NoRater, Rater
from tutelage.evaluation.second_reward import SecondRewardRater
from tutelage.evaluation.verifier import VerifierRater
from tutelage.evaluation.win_rate import WinRateRater
from tutelage.generation import LocalEngine, Sampling
from tutelage.models import Policy, RewardModel
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.judges import named_judge
from tutelage.pipeline.stages.conversation import conversing, scored_answers
from tutelage.pipeline.stages.preparation import encode, load_policy, local_engine, sampling_of
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
    total = len(names) + len(config.best_of_n) + len(config.probes)
    answered: list[Answers] = []
    for name in names:
        context.progress.step(len(answered), total)
        answered.append(_answer(name, prompts, baseline, proxy, config, context))
    for name, n in config.best_of_n.items():
        context.progress.step(len(answered), total)
        answered.append(_best_of_n(name, n, prompts, baseline, proxy, config, context))
    with ExitStack() as opened:
        compared = _with_wins(rater, prompts, answered[0], config, context, opened)
        record = compare(prompts, answered, compared, show=config.show, seed=context.seed)
    record["checkpoints"] = []
    for done, (_, reference) in enumerate(config.probes.items()):
        context.progress.step(len(answered) + done, total)
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
    if config.verifier is not None:
        return VerifierRater(config.verifier)
    if config.judge is not None:
        return SecondRewardRater(_frozen_reward(config.judge, context))
    return NoRater()


def _with_wins(
    rater: Rater,
    prompts: Sequence[Prompt],
    baseline: Answers,
    config: EvaluateStage,
    context: StageContext,
    opened: ExitStack,
) -> Rater:
    if config.win_rate is None:
        return rater
    judge = named_judge(config.win_rate, "win_rate", opened, context.progress.message)
    return WinRateRater(rater, judge, prompts, baseline.answers)


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
    talking = conversing(config.environment, engine, engine.tokenizer, context.seed)
    completions = talking.generate(encoded, sampling)
    answers, lengths = _as_answers(completions), [sum(each.written) for each in completions]
    return Answers(
        name=name,
        stage=_stage_of(config.models[name]),
        answers=answers,
        lengths=lengths,
        divergence=sequence_kl(baseline, encoded, completions, cores=engine.cores),
        proxy=_proxies(proxy, prompts, answers, config, engine.cores),
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
    answers = _as_answers(completions)
    return Answers(
        name=name,
        stage=_stage_of(reference),
        answers=answers,
        lengths=[len(completion.tokens) for completion in completions],
        divergence=[kl_best_of_n(n)] * len(completions),
        proxy=_proxies(proxy, prompts, answers, config, engine.cores),
        drawn=[each.num_tokens for each in chosen],
    )


def _sampler(
    reference: Reference,
    prompts: Sequence[Prompt],
    config: EvaluateStage,
    context: StageContext,
) -> tuple[LocalEngine, list[EncodedPrompt], Sampling]:
    """An engine that begins with the stage's seed, and what it is asked."""
    engine, tokenizer, _ = local_engine(
        context.resolve(reference, "model"), config.sampling, context
    )
    return engine, encode(context, tokenizer, prompts), sampling_of(config.sampling, tokenizer)


def _stage_of(reference: Reference) -> str:
    return reference.partition("/")[0]


def _as_answers(completions: Sequence[Completion]) -> list[Answer]:
    return [Answer(each.text, ended=not each.truncated, turns=each.turns) for each in completions]


def _proxies(
    proxy: RewardModel | None,
    prompts: Sequence[Prompt],
    answers: Sequence[Answer],
    config: EvaluateStage,
    cores: Cores | None = None,
) -> list[float | None] | None:
    """The reward model's score of each answer; of a conversation, the mean over its answers."""
    if proxy is None:
        return None
    asked = [
        scored_answers(config.environment, prompt, answer.text, answer.turns)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    flat = [pair for pairs in asked for pair in pairs]
    scores = iter(proxy.score([p for p, _ in flat], [text for _, text in flat], cores=cores))
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
    prompts, answers = map(Prompt.from_json, rows), map(Answer.from_probe, rows)
    scores = _proxies(proxy, list(prompts), list(answers), config)
    return checkpoints(_stage_of(stage), rows, scores, rater, seed=seed)
