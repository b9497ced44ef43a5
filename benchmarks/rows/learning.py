"""C7: time until the policy has learned something, five seeds.

Timed: from the first round until a round whose sampled mean reward reaches the threshold, from
random weights. The reward is a program: tokens of the last quarter of the vocabulary over the
tokens that an answer may have, 0.25 at the start. Rounds go on after the threshold, and the mean
over the last five is the final reward. No answer is made to end or kept from ending: a token that
may not be drawn is never found out, and its probability grows as that of others is taken away.

    ours   `ppo` with `LocalEngine`
    peer   `PPOTrainer.train` in its tuned settings

Both have the same clips, epochs, KL coefficient, batch and learning rate. Each repeat has a seed of
its own, so repeats differ and no run is discarded for it.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.core.row import Row, Side

__all__ = ["OurLearning", "TRLLearning", "c7"]

_SCALE = 10.0
"""Score of a share of 1: large enough that the KL penalty does not drown it."""
_KL = 0.01
_MICROBATCH_TOKENS = 768
"""Half of a round's, so that each of two cores has something to do."""


def c7(quick: bool) -> Row:
    """tiny, 64 episodes of 16 tokens in a round."""
    options = {
        "requests": {
            "shape": "micro" if quick else "tiny",
            "count": 16 if quick else 64,
            "shortest": 4,
            "longest": 8,
            "answer": 16,
        },
        "rounds": 6 if quick else 60,
        "threshold": 0.15 if quick else 0.8,
        "learning_rate": 1e-3,
    }
    here = "benchmarks.rows.learning"
    tuned = {**options, "bf16": False, "microbatch": 16 if quick else 32}
    return Row(
        "C7",
        "time to a mean reward of 0.8 from 0.25, tiny, five seeds",
        ">= 5x sooner, final reward >= TRL's",
        [
            Side("tutelage", f"{here}:OurLearning", options),
            Side("TRL tuned", f"{here}:TRLLearning", tuned, "peer"),
        ],
        repeatable=False,
        selected=False,
    )


def _paid_from(vocabulary: int) -> int:
    """The first token of the last quarter."""
    return vocabulary - vocabulary // 4


class _Curve:
    """Rewards by round, and the clocks when the threshold was first reached."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.rewards: list[float] = []
        self.started = (time.perf_counter(), time.process_time())
        self.reached: tuple[float, float] | None = None

    def add(self, reward: float) -> None:
        self.rewards.append(reward)
        if self.reached is None and reward >= self.threshold:
            self.reached = (time.perf_counter(), time.process_time())

    def figures(self) -> dict[str, float]:
        if self.reached is None:
            raise RuntimeError(
                f"the mean reward never reached {self.threshold}; by round: "
                f"{[round(reward, 3) for reward in self.rewards]}"
            )
        return {
            "wall_s": self.reached[0] - self.started[0],
            "cpu_s": self.reached[1] - self.started[1],
            "rounds": float(sum(1 for _ in self.rewards)),
            "final_reward": sum(self.rewards[-5:]) / len(self.rewards[-5:]),
        }


class OurLearning:
    """A training run of `ppo` per repeat."""

    def __init__(
        self, requests: Mapping[str, Any], rounds: int, threshold: float, learning_rate: float
    ) -> None:
        """Takes `Requests` as a mapping; the seed is the number of the repeat."""
        self.requests, self.rounds, self.threshold = dict(requests), rounds, threshold
        self.learning_rate, self.seed = learning_rate, 0

    def prepare(self) -> None:
        """Nothing that outlives a repeat."""
        from benchmarks.sides import learning  # noqa: F401

    def run(self) -> dict[str, float]:
        """Trains from random weights."""
        from benchmarks.sides import learning, ours
        from benchmarks.sides.requests import Requests
        from tutelage.records import Score

        self.seed += 1
        asked = Requests(**self.requests, seed=self.seed)
        actors = learning.Actors(
            asked,
            4,
            "float32",
            _MICROBATCH_TOKENS,
            "cpu",
            seed=self.seed,
            learning_rate=self.learning_rate,
            kl=_KL,
        )
        vocabulary = len(actors.tokenizer)
        engine = ours.engine(actors.policy, vocabulary, None, asked.count)
        curve, first = _Curve(self.threshold), _paid_from(vocabulary)

        def reward(prompts: Sequence[Any], completions: Sequence[Any]) -> list[Score]:
            shares = [
                sum(token >= first for token in completion.tokens) / asked.answer
                for completion in completions
            ]
            curve.add(sum(shares) / len(shares))
            return [Score(_SCALE * share) for share in shares]

        steps = actors.steps(asked, engine, reward)
        for _ in range(self.rounds):
            next(steps)
        return curve.figures()


class TRLLearning:
    """A training run of TRL's trainer per repeat."""

    def __init__(
        self,
        requests: Mapping[str, Any],
        rounds: int,
        threshold: float,
        learning_rate: float,
        bf16: bool,
        microbatch: int,
    ) -> None:
        """Takes `Requests` as a mapping; the seed is the number of the repeat."""
        self.requests, self.rounds, self.threshold = dict(requests), rounds, threshold
        self.learning_rate, self.seed = learning_rate, 0
        self.bf16, self.microbatch = bf16, microbatch

    def prepare(self) -> None:
        """Nothing that outlives a repeat."""
        from trl.experimental.ppo import ppo_trainer

        self.plain_reward = ppo_trainer.get_reward

    def run(self) -> dict[str, float]:
        """Trains from random weights."""
        from trl.experimental.ppo import ppo_trainer

        from benchmarks.sides import trl_ppo
        from benchmarks.sides.shapes import SHAPES

        self.seed += 1
        first = _paid_from(SHAPES[self.requests["shape"]]["vocab_size"])
        side = trl_ppo.TRLTrainer(
            {**self.requests, "seed": self.seed},
            bf16=self.bf16,
            microbatch=self.microbatch,
            chunk=self.requests["count"],
        )
        side.build(
            seed=self.seed,
            forced=False,
            total_episodes=self.requests["count"] * self.rounds,
            learning_rate=self.learning_rate,
            kl_coef=_KL,
        )
        curve = _Curve(self.threshold)

        def get_reward(model: Any, rows: Any, pad: int, context: int) -> Any:
            if model is not side.trainer.reward_model:
                return self.plain_reward(model, rows, pad, context)
            shares = (rows[:, context:] >= first).sum(1) / self.requests["answer"]
            curve.add(float(shares.mean()))
            return None, _SCALE * shares, None

        ppo_trainer.get_reward = get_reward
        side.trainer.train()
        return curve.figures()
