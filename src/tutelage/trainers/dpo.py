"""Direct preference optimisation: the policy learns from pairs of answers, nothing is sampled.

Rafailov et al. 2023 (arXiv:2305.18290), and what became of it: see `tutelage.algorithms.dpo_loss`.

    minibatch of pairs, log pi_ref read before ──pi──> dpo_loss with p_a ──> step

It differs from PPO in what it needs: no reward model, no critic, no sampler, and no reference in
memory, whose log-probabilities are read once before the first step. It learns from the answers
that others wrote, and about no others.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tutelage.algorithms import LossOutput
from tutelage.config import DPOConfig
from tutelage.models import Policy
from tutelage.trainers.learner import Learner
from tutelage.trainers.pairs import AnswerPair, PairBatch, describe_pairs, pair_loss

__all__ = ["DPOStep", "dpo"]


@dataclass(frozen=True)
class DPOStep:
    """One optimiser step."""

    index: int
    metrics: Mapping[str, float]


def dpo(
    policy: Policy,
    learner: Learner,
    batches: Iterable[Sequence[AnswerPair]],
    config: DPOConfig,
    *,
    start: int = 0,
) -> Iterator[DPOStep]:
    """Yields one `DPOStep` per minibatch, with `loss`, the `dpo/` metrics and the optimiser's.

    Watch `dpo/chosen_logprob` beside `dpo/margin`: the loss is content when both answers become
    less likely, the worse one faster (Pal et al. 2024, arXiv:2402.13228).

    Args:
        policy: trained in place.
        learner: owns the optimiser.
        batches: minibatches of pairs, with the reference's log-probabilities.
        config: the loss.
        start: number of the first step; not 0 where training is resumed.
    """

    def loss(batch: PairBatch, denominator: float) -> LossOutput:
        return pair_loss(policy, batch.pairs, config, denominator)

    policy.model.train()
    for index, pairs in enumerate(batches, start):
        metrics = learner.step(loss, PairBatch(pairs), describe=partial(describe_pairs, pairs))
        yield DPOStep(index, metrics)
