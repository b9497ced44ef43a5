"""C3: scoring a finished rollout.

Timed: log-probabilities of the reference, values, and rewards for the rollout of C2, from
token ids to numbers.

    ours   `Policy.logprobs`, `Critic.values` and `RewardModel`, in the learner's micro-batches
    peer   TRL's `forward` of the reference and its `get_reward` of value and reward model, in its
           chunks of 64 padded rows

Each of our formats meets each of the peer's: the first two lines of a format are "same dtype".
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.core.row import Check, Row, Side

__all__ = ["OurScoring", "TRLScoring", "c3"]


def c3(quick: bool) -> Row:
    """135M, 128 rows."""
    requests: dict[str, Any] = {
        "shape": "micro" if quick else "135M",
        "count": 8 if quick else 128,
        "shortest": 4 if quick else 16,
        "longest": 12 if quick else 64,
        "answer": 16 if quick else 128,
    }
    here = "benchmarks.rows.scoring"
    options = {f: {"requests": requests, "dtype": f} for f in ("float32", "bfloat16")}
    sides = [
        *(
            Side(f"tutelage {f}", f"{here}:OurScoring", chosen, format=f, gated=True)
            for f, chosen in options.items()
        ),
        *(
            Side(f"TRL {f}", f"{here}:TRLScoring", chosen, "peer", f)
            for f, chosen in options.items()
        ),
    ]
    return Row(
        "C3",
        f"scoring, {requests['shape']}, {requests['count']} rows: reference, value, reward",
        ">= 3x same dtype, >= 5x bfloat16",
        sides,
        work={"kind": "score", "requests": requests, "models": 2},
    )


class OurScoring:
    """Three models over the same rows, sorted by length."""

    def __init__(self, requests: Mapping[str, Any], dtype: str, device: str = "cpu") -> None:
        """Takes `Requests` as a mapping."""
        from benchmarks.sides.requests import Requests

        self.requests = Requests(**requests)
        self.dtype, self.device = dtype, device

    def prepare(self) -> None:
        """Builds the models and scores once."""
        from benchmarks.sides import learning, ours

        requests = self.requests
        self.actors = learning.Actors(requests, 1, self.dtype, 1024, self.device)
        self.actors.critic.eval()
        self.actors.reward_model.eval()
        rows = ours.experience_of(requests.prompts, requests.answers, self.device)
        self.rows, self.plan = rows, self.actors.learner.plan(rows)
        self.run()

    def check(self) -> list[Check]:
        """Log-probabilities of some rows against a plain forward pass."""
        from dataclasses import replace

        from benchmarks.sides import ours, parity

        chosen = range(min(8, len(self.rows)))
        part = self.rows.select(chosen)
        found = self.actors.reference.logprobs(part)
        prompts = ours.encoded(self.requests.prompts[: len(chosen)], len(self.actors.tokenizer))
        drawn = ours.completions_of(self.requests.answers[: len(chosen)])
        seen = [
            replace(completion, logprobs=tuple(found[i][part.response_mask[i]].tolist()))
            for i, completion in enumerate(drawn)
        ]
        return parity.logprob_gate(
            self.actors.reference, prompts, seen, self.dtype, lengths_forced=False
        )

    def run(self) -> dict[str, float]:
        """Scores every row."""
        actors = self.actors

        def thoughts(rows: Any) -> dict[str, Any]:
            return {
                "ref_logprobs": actors.reference.logprobs(rows),
                "values": actors.critic.values(rows),
                "scores": actors.reward_model(rows.tokens, rows.attention_mask),
            }

        actors.learner.evaluate(thoughts, self.rows, self.plan)
        return {"tokens": float(sum(self.requests.lengths))}


class TRLScoring:
    """The calls that `PPOTrainer.train` makes between rollout and rewards."""

    def __init__(
        self, requests: Mapping[str, Any], dtype: str, chunk: int = 64, device: str = "cpu"
    ) -> None:
        """`chunk` is TRL's `local_rollout_forward_batch_size`; bfloat16 is its autocast."""
        from benchmarks.sides.requests import Requests

        self.requests = Requests(**requests)
        self.dtype, self.chunk, self.device = dtype, chunk, device

    def prepare(self) -> None:
        """Builds the models and scores once."""
        import torch

        from benchmarks.sides import rollouts, shapes

        requests = self.requests
        build = shapes.classifier
        self.reference = shapes.causal_lm(requests.shape, 0, self.device).eval()
        self.reward, self.value = (
            build(requests.shape, seed, self.device).eval() for seed in (1, 2)
        )
        queries = rollouts.left_padded(requests.prompts, self.device)
        width = max(requests.lengths)
        answers = [[*ids, *[shapes.PAD] * (width - len(ids))] for ids in requests.answers]
        self.context = queries.shape[1]
        self.rows = torch.cat([queries, torch.tensor(answers, device=self.device)], 1)
        self.run()

    def run(self) -> dict[str, float]:
        """Scores every row."""
        import torch

        with (
            torch.no_grad(),
            torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bfloat16"),
        ):
            for start in range(0, len(self.rows), self.chunk):
                self._score(self.rows[start : start + self.chunk])
        return {"tokens": float(sum(self.requests.lengths))}

    def _score(self, rows: Any) -> None:
        from trl.experimental.ppo.ppo_trainer import forward
        from trl.experimental.utils import get_reward
        from trl.trainer.utils import selective_log_softmax

        from benchmarks.sides.shapes import PAD

        logits = forward(self.reference, rows, PAD).logits[:, self.context - 1 : -1]
        logits /= 0.7 + 1e-7
        selective_log_softmax(logits, rows[:, self.context :])
        del logits
        get_reward(self.value, rows, PAD, self.context)
        get_reward(self.reward, rows, PAD, self.context)
