"""Online DPO: direct preference optimisation on pairs that the policy has just written.

Guo et al. 2024, "Direct language model alignment from online AI feedback", arXiv:2402.04792.

    prompts ──pi──> completions ──judge──> pairs with p_a ──pi_ref──> log pi_ref
       ^                                                                  │
       └───────────────────────────── pi <────dpo_loss, one step or some──┘

It differs from DPO in where the answers come from: the policy is corrected where it is, not where
the data were collected. It differs from PPO in what a score is used for: only which of two
completions is better counts, so the reward needs no scale, and there is no critic.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

from tutelage.algorithms import LossOutput, kl_estimate
from tutelage.config import OnlineDPOConfig
from tutelage.data.answers import WeightedIds
from tutelage.experience import Experience
from tutelage.generation import Engine, Sampling
from tutelage.judging import Judge, in_both_orders
from tutelage.models import Policy, training_mode
from tutelage.records import Comparison, Completion, EncodedPrompt, Score, ScoreStatus
from tutelage.rewards import Reward, finite_or_failed, require_scores
from tutelage.trainers.evidence import SampledRows, sample
from tutelage.trainers.learner import Learner
from tutelage.trainers.pairs import AnswerPair, PairBatch, describe_pairs, pair_loss
from tutelage.trainers.rollout import collate, reward_metrics, rollout_metrics
from tutelage.trainers.round import (
    RoundStep,
    annotate,
    at_temperature,
    present,
    truncated_scores,
    usable_scores,
)

__all__ = ["AskedPairs", "JudgedPair", "PairJudge", "ScoredPairs", "online_dpo"]


class JudgedPair(NamedTuple):
    """Two completions of one prompt by number, and the probability that the first is better."""

    a: int
    b: int
    p_a: float


class PairJudge(Protocol):
    """Pairs up completions and says which are better."""

    def __call__(
        self, prompts: Sequence[EncodedPrompt], completions: Sequence[Completion]
    ) -> tuple[list[JudgedPair], list[Score]]:
        """Pairs, and what each completion is worth.

        `prompts[i]` is what `completions[i]` answers; those of one prompt are side by side.
        """
        ...


class ScoredPairs:
    """A reward's best completion of each prompt against its worst.

    Completions that were cut off count for what `truncation` makes of their scores. Those that
    could not be scored are in no pair, nor are those of a prompt whose best and worst are the same
    tokens or, with hard labels, are worth the same.
    """

    def __init__(self, reward: Reward, config: OnlineDPOConfig) -> None:
        """Args: what scores completions, and how labels are made of scores."""
        self.reward = reward
        self.config = config

    def __call__(
        self, prompts: Sequence[EncodedPrompt], completions: Sequence[Completion]
    ) -> tuple[list[JudgedPair], list[Score]]:
        """One pair at most for each prompt.

        Raises:
            RewardError: more than `max_failed_share` could not be scored.
        """
        scores = finite_or_failed(self.reward([each.prompt for each in prompts], completions))
        require_scores(scores, self.config.max_failed_share)
        worth = self._worth(prompts, completions, scores)
        pairs = []
        for rows in _rows_by_prompt(prompts):
            usable = [row for row in rows if not math.isnan(worth[row])]
            if not usable:
                continue
            best = max(usable, key=lambda row: worth[row])
            worst = min(usable, key=lambda row: worth[row])
            p_a = self._label(worth[best] - worth[worst])
            if p_a is not None and completions[best].tokens != completions[worst].tokens:
                pairs.append(JudgedPair(best, worst, p_a))
        return pairs, scores

    def _worth(
        self,
        prompts: Sequence[EncodedPrompt],
        completions: Sequence[Completion],
        scores: Sequence[Score],
    ) -> list[float]:
        """Scores after truncation; NaN where a completion counts nowhere."""
        truncation = self.config.truncation
        rows = collate(prompts, completions, scores, truncation.mode)
        found = truncated_scores(rows, truncation, self.config.sampling)
        worth: list[float] = usable_scores(found, rows, 1).squeeze(1).tolist()
        return worth

    def _label(self, gap: float) -> float | None:
        """Probability that the best is better; None where nothing tells them apart."""
        if self.config.label == "soft":
            return 1 / (1 + math.exp(-min(gap / self.config.label_temperature, 700.0)))
        return 1.0 if gap > 0 else None


class AskedPairs:
    """A judge is asked about the first completion and the second, the third and the fourth.

    Each pair is shown in both orders. What a completion is worth is the probability that it beats
    the other one; pairs of which the judge cannot tell are left out.
    """

    def __init__(self, judge: Judge) -> None:
        """Args: people, a judge model or a simulation."""
        self.judge = judge

    def __call__(
        self, prompts: Sequence[EncodedPrompt], completions: Sequence[Completion]
    ) -> tuple[list[JudgedPair], list[Score]]:
        """A pair for every two completions of different text."""
        both = [
            (a, b)
            for rows in _rows_by_prompt(prompts)
            for a, b in zip(rows[::2], rows[1::2], strict=False)
            if completions[a].text != completions[b].text
        ]
        comparisons = [
            Comparison(
                prompts[a].prompt,
                completions[a].text,
                completions[b].text,
                f"{prompts[a].prompt.id}/{a}-{b}",
            )
            for a, b in both
        ]
        judged = zip(both, in_both_orders(self.judge, comparisons), strict=True)
        pairs = [JudgedPair(a, b, p_a) for (a, b), p_a in judged if p_a is not None]
        scores = [Score.failed(ScoreStatus.UNSCORABLE, "not compared")] * len(completions)
        for pair in pairs:
            scores[pair.a], scores[pair.b] = Score(pair.p_a), Score(1 - pair.p_a)
        return pairs, scores


def online_dpo(
    policy: Policy,
    reference: Policy,
    engine: Engine,
    judge: PairJudge,
    learner: Learner,
    prompts: Iterable[Sequence[EncodedPrompt]],
    sampling: Sampling,
    config: OnlineDPOConfig,
    *,
    start: int = 0,
) -> Iterator[RoundStep]:
    """Yields one `RoundStep` per batch of prompts, numbered from `start`.

    Logging, evaluation and saving belong to whoever consumes the iterator. Between two rounds all
    state is in the arguments.

    Args:
        policy: trained in place.
        reference: pi_ref.
        engine: samples from the policy.
        judge: makes pairs of completions.
        prompts: of each round.
        sampling: of at least two completions for each prompt.
        config: loss and labels.
        start: number of the first round; not 0 where training is resumed.

    Raises:
        ValueError: one completion for each prompt gives no pair.
        TrainingError: too many numbers are not finite.
        RewardError: too many completions could not be scored.
    """
    if sampling.samples_per_prompt < 2:
        raise ValueError(
            f"found samples_per_prompt {sampling.samples_per_prompt}, a pair takes 2 or more"
        )

    def loss(batch: PairBatch, denominator: float) -> LossOutput:
        return pair_loss(policy, batch.pairs, config.loss, denominator)

    for index, batch in enumerate(prompts, start):
        # 1. Sample y_1 ... y_n ~ pi(. | x), and ask which is better.
        drawn = at_temperature(index, sampling, config, policy, reference)
        completions = sample(engine, batch, drawn, learner.guard)
        repeated = [prompt for prompt in batch for _ in range(sampling.samples_per_prompt)]
        judged, scores = judge(repeated, completions)
        sampled = SampledRows(repeated, completions, scores)
        sampled.record_scores(learner.guard)

        # 2. What pi and pi_ref thought of every token.
        experience = collate(repeated, completions, scores, config.truncation.mode)
        experience = experience.to(policy.model.device)
        experience = annotate(experience, policy, reference, learner, learner.plan(experience))
        learnable = sampled.allow(experience, learner.guard)
        worth = truncated_scores(experience, config.truncation, config.sampling)
        experience = replace(experience, scores=worth)
        pairs = _answer_pairs(judged, sampled, experience, config)

        # 3. Epochs of updates on the pairs.
        rows = PairBatch(pairs)
        with training_mode(policy.model):
            metrics = learner.fit(
                loss,
                rows,
                learner.plan(rows, config.epochs) if learnable else [],
                describe=partial(describe_pairs, pairs),
            )

        # 4. The sampler gets the new weights.
        engine.load_weights(policy)
        kl = kl_estimate(present(experience.old_logprobs), present(experience.ref_logprobs))
        metrics["kl/coefficient"] = config.loss.beta
        metrics |= reward_metrics(scores, experience, kl, config.loss.beta)
        metrics |= rollout_metrics(experience, kl)
        metrics["dpo/paired"] = len({repeated[pair.a].prompt.id for pair in judged}) / len(batch)
        if not learnable:
            metrics["train/not_finite"] = 1.0
        if not learnable or not pairs:
            metrics["train/skipped"] = 1.0
        yield RoundStep.of(index, sampled, experience, metrics)


def _rows_by_prompt(prompts: Sequence[EncodedPrompt]) -> list[list[int]]:
    """Numbers of the completions of each prompt."""
    groups: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(prompt.prompt.id, []).append(row)
    return list(groups.values())


def _answer_pairs(
    pairs: Sequence[JudgedPair],
    sampled: SampledRows,
    experience: Experience,
    config: OnlineDPOConfig,
) -> list[AnswerPair]:
    """Pairs in tokens exactly as drawn, with the reference's log-probabilities of both.

    A pair with a completion that counts nowhere, as one that `drop` has masked, is left out.
    """
    counts = experience.response_mask.any(1).tolist()
    of_reference: list[float] = present(experience.ref_logprobs).sum(1).tolist()
    if config.loss.reference == "none":
        of_reference = [0.0] * len(of_reference)

    def written(row: int) -> WeightedIds:
        completion = sampled.completions[row]
        question, weights = sampled.prompts[row].tokens, map(float, completion.written)
        return (*question, *completion.tokens), (0.0,) * len(question) + tuple(weights)

    return [
        AnswerPair(written(a), written(b), p_a, (of_reference[a], of_reference[b]))
        for a, b, p_a in pairs
        if counts[a] and counts[b]
    ]
