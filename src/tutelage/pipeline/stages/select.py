"""Keeps the best of n completions of each prompt as demonstrations: best-of-n distillation.

samples ──reward model──> scores ──best of each prompt──> sft.jsonl ──stage sft──> policy
                             └──> best_of_n.json: what choosing among 1, 2, 4 ... n is worth

Supervised fine-tuning on the winners is one round of RAFT (Dong et al. 2023, arXiv:2304.06767).
Completions that the token limit cut off are no candidates: as a demonstration one of them would
teach the policy to stop in the middle of a sentence. Nor are those that no demonstration may hold:
empty ones, and control characters.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tutelage.config import SelectStage
from tutelage.data.jsonl import write_jsonl
from tutelage.data.loaders import Samples, load_samples
from tutelage.data.text import control_characters
from tutelage.errors import DataError
from tutelage.evaluation.best_of_n import BestOfN, best_of_n_curve
from tutelage.models import RewardModel
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.preparation import device, share_out
from tutelage.records import Demonstration, Message, Prompt, Score, ScoreStatus
from tutelage.rewards import ModelReward
from tutelage.trainers.best_of_n import best_scored

__all__ = ["run"]

_AT_ONCE = 64
"""Prompts between two reports of progress."""


def run(config: SelectStage, context: StageContext) -> dict[str, float]:
    """Scores the candidates, writes the winners and how much better they are."""
    path = context.resolve(config.samples, "samples.jsonl")
    samples = load_samples(path, config.limit)
    _require_candidates(samples, path)
    model = RewardModel.load(context.resolve(config.reward, "model"))
    model.to(device()).eval()
    scored = _score(config, context, model, samples)
    chosen = [(row, best_scored(scores)) for row, scores in zip(samples, scored, strict=True)]
    winners = [_demonstration(row, best) for row, best in chosen if best is not None]
    left_out = len(samples) - len(winners)
    if not winners:
        raise DataError(
            f"none of {len(samples)} prompts in {path} has a completion that could be chosen: each "
            "is empty, cut off by the token limit, too long for the reward model, or holds control "
            "characters"
        )
    if left_out:
        context.progress.message(
            f"{left_out} of {len(samples)} prompts have no completion that could be chosen and are "
            "left out"
        )
    write_jsonl(context.folder / "sft.jsonl", [row.to_json() for row in winners])
    curve = _curve(scored)
    _write_curve(curve, context.folder / "best_of_n.json")
    return {
        "demonstrations": float(len(winners)),
        "left_out": float(left_out),
        "best_of": float(curve.sizes[-1]),
        "score_of_one": curve.proxy[0],
        "score_of_best": curve.proxy[-1],
        "kl_bound": curve.distances[-1] ** 2,
    }


def _require_candidates(samples: Sequence[Samples], path: Path) -> None:
    for row in samples:
        if row.prompt.mode == "continuation":
            raise DataError(
                f"{path}: prompt {row.prompt.id!r} is a text to be continued, and demonstrations "
                "are conversations: sample from chat prompts"
            )


def _score(
    config: SelectStage, context: StageContext, model: RewardModel, samples: Sequence[Samples]
) -> list[list[Score]]:
    """A score for each candidate of each prompt; what must not be imitated has failed."""
    reward = ModelReward(model, cores=share_out(context, model))
    scored: list[list[Score]] = []
    for start in range(0, len(samples), _AT_ONCE):
        rows = samples[start : start + _AT_ONCE]
        texts = [row.completions[: config.best_of] for row in rows]
        prompts = [row.prompt for row, each in zip(rows, texts, strict=True) for _ in each]
        found = iter(reward.of_texts(prompts, [text for each in texts for text in each]))
        for row, each in zip(rows, texts, strict=True):
            cut = row.truncated or (False,) * len(each)
            scored.append([_candidate(next(found), *two) for two in zip(each, cut, strict=False)])
        context.progress.step(start + len(rows), len(samples))
    return scored


def _candidate(score: Score, text: str, truncated: bool) -> Score:
    if truncated:
        return Score.failed(ScoreStatus.UNSCORABLE, "cut off by the token limit")
    if not text.strip():
        return Score.failed(ScoreStatus.UNSCORABLE, "empty")
    if control_characters(text):
        return Score.failed(ScoreStatus.UNSCORABLE, "holds control characters")
    return score


def _demonstration(row: Samples, best: int) -> Demonstration:
    prompt: Prompt = row.prompt
    answer = Message("assistant", row.completions[best])
    return Demonstration(prompt.id, (*prompt.messages, answer), prompt.source, prompt.category)


def _curve(scored: Sequence[Sequence[Score]]) -> BestOfN:
    """What the best of 1, 2, 4 ... scores, over the prompts with as many candidates as any."""
    usable = [[score.value for score in scores if score.ok] for scores in scored]
    most = max(map(len, usable))
    sizes = sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})
    scores = [values for values in usable if len(values) == most]
    return best_of_n_curve(scores, scores, sizes)


def _write_curve(curve: BestOfN, path: Path) -> None:
    rows = [
        {"n": n, "score": score, "kl_bound": distance**2}
        for n, score, distance in zip(curve.sizes, curve.proxy, curve.distances, strict=True)
    ]
    path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
