"""A KL budget before any training: where best-of-n stops paying by a held-out signal.

    samples ──reward──> ranks          gain(d) = d (alpha - beta d),  d = sqrt(KL)
            ──signal──> what is gained ──fit──> peak d* ──> budget = 4 d*^2

Gao et al. 2022 (arXiv:2210.10760) found that reinforcement learning spends far more KL than
best-of-n on the same gain. On the helpdesk world the gold score of PPO peaked at about four times
the KL at which that of best-of-n did (docs/guard.md): a prior, not a law.
"""

import math
from pathlib import Path

import numpy as np

from tutelage.data.jsonl import read_jsonl
from tutelage.errors import ConfigError
from tutelage.evaluation.best_of_n import best_of_n_curve
from tutelage.records import Completion, Prompt
from tutelage.rewards import Reward

__all__ = ["prior_budget"]

_PROMPTS = 96
"""Prompts read, at most: the curve is a mean over them."""
_PPO_OVER_BEST_OF_N = 4.0


def prior_budget(samples: Path, reward: Reward, signal: Reward) -> float:
    """Nats per answer at which a policy trained on `reward` is expected to peak by `signal`.

    Args:
        samples: of a sample stage with the same number of answers per prompt, at least 8.
        reward: what will be trained on; it chooses the best of n.
        signal: says what was gained.

    Returns:
        The budget; infinite where the signal does not stop rising.

    Raises:
        ConfigError: there are too few answers per prompt, or the signal falls from the start.
    """
    rows = [row for _, row in read_jsonl(samples)][:_PROMPTS]
    count = min((len(row["completions"]) for row in rows), default=0)
    sizes = [2**k for k in range(int(math.log2(max(1, count))) + 1)]
    if len(sizes) < 4:
        raise ConfigError(
            f"{samples} has {count} answers to a prompt, a best-of-n curve needs at least 8: set "
            "sampling.samples_per_prompt of that stage to 32 or more"
        )
    chosen, measured = [], []
    for row in rows:
        prompts, drawn = [Prompt.from_json(row)] * count, row["completions"][:count]
        answers = [Completion.from_json({**each, "prompt_id": row["id"]}) for each in drawn]
        pair = [each(prompts, answers) for each in (reward, signal)]
        if all(score.ok for scores in pair for score in scores):
            chosen.append([score.value for score in pair[0]])
            measured.append([score.value for score in pair[1]])
    if not chosen:
        raise ConfigError(f"no prompt of {samples} has answers that could all be scored")
    fit = best_of_n_curve(np.array(chosen), np.array(measured), sizes).fit()
    if fit.peak <= 0.0:
        raise ConfigError(
            f"best-of-n by this reward lowers the held-out signal from the start (alpha "
            f"{fit.alpha:.3g}): the reward is not fit to train on. To go on, set "
            "guard.monitors.kl_budget_limit to a number"
        )
    return _PPO_OVER_BEST_OF_N * fit.peak**2
