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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import NamedTuple, Protocol

from tutelage.algorithms import LossOutput
from tutelage.config import OnlineDPOConfig
from tutelage.data.answers import WeightedIds
from tutelage.feedback.gather import Gatherer
from tutelage.generation import Engine, Sampling
from tutelage.models import Policy, training_mode
from tutelage.records import Comparison, Completion, EncodedPrompt, Score, ScoreStatus
from tutelage.rewards import Reward, finite_or_failed, require_scores
from tutelage.trainers.divergence import sequence_kl
from tutelage.trainers.evidence import SampledRows, sample
from tutelage.trainers.learner import Learner
from tutelage.trainers.pairs import AnswerPair, PairBatch, describe_pairs, pair_loss
from tutelage.trainers.rollout import score_metrics

__all__ = ["AskedPairs", "JudgedPair", "OnlineDPOStep", "PairJudge", "ScoredPairs", "online_dpo"]


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


@dataclass(frozen=True)
class OnlineDPOStep:
    """One round: what was sampled, what was made of it, what the updates did."""

    index: int
    prompts: Sequence[EncodedPrompt]
    """The prompt of each completion."""
    completions: Sequence[Completion]
    scores: Sequence[Score]
    divergence: Sequence[float]
    """log pi - log pi_ref of each completion, in nats."""
    pairs: Sequence[JudgedPair]
    metrics: Mapping[str, float]


class ScoredPairs:
    """A reward's best completion of each prompt against its worst.

    Completions that could not be scored are in no pair, nor are those of a prompt whose best and
    worst are the same tokens or, with hard labels, have the same score.
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
        pairs = []
        for rows in _rows_by_prompt(prompts):
            usable = [row for row in rows if scores[row].ok]
            if not usable:
                continue
            best = max(usable, key=lambda row: scores[row].value)
            worst = min(usable, key=lambda row: scores[row].value)
            p_a = self._label(scores[best].value - scores[worst].value)
            if p_a is not None and completions[best].tokens != completions[worst].tokens:
                pairs.append(JudgedPair(best, worst, p_a))
        return pairs, scores

    def _label(self, gap: float) -> float | None:
        """Probability that the best is better; None where nothing tells them apart."""
        if self.config.label == "soft":
            return 1 / (1 + math.exp(-min(gap / self.config.label_temperature, 700.0)))
        return 1.0 if gap > 0 else None


class AskedPairs:
    """Whoever judges is asked about the first completion and the second, the third and the fourth.

    What a completion is worth is then the probability that it beats the other one.
    """

    def __init__(self, gatherer: Gatherer) -> None:
        """Args: people, a judge model or a simulation."""
        self.gatherer = gatherer

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
        judged = self.gatherer(comparisons) if comparisons else []
        pairs = [JudgedPair(a, b, row.p_a) for (a, b), row in zip(both, judged, strict=True)]
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
) -> Iterator[OnlineDPOStep]:
    """Yields one `OnlineDPOStep` per batch of prompts, numbered from `start`.

    Logging, evaluation and saving belong to whoever consumes the iterator. Between two rounds all
    state is in the arguments.

    Args:
        policy: trained in place.
        reference: pi_ref.
        engine: samples from the policy.
        judge: makes pairs of completions.
        learner: owns the optimiser.
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
        return pair_loss(policy, batch.pairs, config, denominator)

    for index, batch in enumerate(prompts, start):
        # 1. Sample y_1 ... y_n ~ pi(. | x), and ask which is better.
        completions = sample(engine, batch, sampling, learner.guard)
        repeated = [prompt for prompt in batch for _ in range(sampling.samples_per_prompt)]
        pairs, scores = judge(repeated, completions)
        SampledRows(repeated, completions, scores).record_scores(learner.guard)

        # 2. What pi_ref thinks of every completion: log pi - log pi_ref.
        divergence = sequence_kl(
            reference,
            repeated,
            completions,
            batch_tokens=learner.microbatches.tokens,
            cores=learner.cores,
        )
        answers = _answer_pairs(pairs, repeated, completions, divergence, config)

        # 3. Epochs of updates on the pairs.
        rows = PairBatch(answers)
        with training_mode(policy.model):
            metrics = learner.fit(
                loss,
                rows,
                learner.plan(rows, config.epochs),
                describe=partial(describe_pairs, answers),
            )

        # 4. The sampler gets the new weights.
        engine.load_weights(policy)
        metrics |= _round_metrics(completions, scores, divergence)
        metrics["dpo/paired"] = len({repeated[a].prompt.id for a, _, _ in pairs}) / len(batch)
        if not pairs:
            metrics["train/skipped"] = 1.0
        yield OnlineDPOStep(index, repeated, completions, scores, divergence, pairs, metrics)


def _rows_by_prompt(prompts: Sequence[EncodedPrompt]) -> list[list[int]]:
    """Numbers of the completions of each prompt."""
    groups: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(prompt.prompt.id, []).append(row)
    return list(groups.values())


def _answer_pairs(
    pairs: Sequence[JudgedPair],
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Completion],
    divergence: Sequence[float],
    config: OnlineDPOConfig,
) -> list[AnswerPair]:
    """Pairs in tokens exactly as drawn, with log pi_ref = log pi - (log pi - log pi_ref)."""

    def written(row: int) -> WeightedIds:
        question, answer = prompts[row].tokens, completions[row].tokens
        weights = tuple(float(wrote) for wrote in completions[row].written)
        return (*question, *answer), (0.0,) * len(question) + weights

    def of_reference(row: int) -> float:
        if config.reference == "none":
            return 0.0
        return math.fsum(completions[row].logprobs) - divergence[row]

    return [
        AnswerPair(
            written(pair.a),
            written(pair.b),
            pair.p_a,
            (of_reference(pair.a), of_reference(pair.b)),
        )
        for pair in pairs
    ]


def _round_metrics(
    completions: Sequence[Completion], scores: Sequence[Score], divergence: Sequence[float]
) -> dict[str, float]:
    """Scores, lengths, endings and divergence of what the policy wrote in the round."""
    return score_metrics(scores) | {
        "kl/sequence": fmean(divergence),
        "response/length": fmean(sum(each.written) for each in completions),
        "response/truncated": fmean(each.truncated for each in completions),
    }
