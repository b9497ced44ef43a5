"""C2, H2: a ragged rollout, as PPO makes them.

Timed: requests whose prompts differ in length and whose answers end one after the other, at
lengths forced from a seeded list, log-probabilities returned. Only real answer tokens count.

    ours   `LocalEngine.generate`
    peers  TRL's `batch_generation`, which keeps the scores of every position, in its default
           chunks and in one chunk as large as the rollout; transformers `generate_batch`; vLLM
           for CPUs where it can be installed
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.core.row import Row, Side, clocks

__all__ = ["TRLBatchGeneration", "c2", "c2f", "h2"]


def c2(quick: bool) -> Row:
    """135M in bfloat16."""
    return _row("C2", "bfloat16", (128, 16, 64, 128), ">= 5x", quick)


def c2f(quick: bool) -> Row:
    """135M in float32."""
    return _row("C2f", "float32", (128, 16, 64, 128), "as C2, float32", quick)


def h2(quick: bool) -> Row:
    """135M in bfloat16 on a GPU."""
    goal = ">= 25x TRL default, >= 8x TRL tuned, >= 3x generate_batch"
    return _row("H2", "bfloat16", (1024, 32, 128, 512), goal, quick, "cuda")


def _row(
    name: str,
    dtype: str,
    sizes: tuple[int, int, int, int],
    goal: str,
    quick: bool,
    device: str = "cpu",
) -> Row:
    count, shortest, longest, answer = (8, 4, 12, 16) if quick else sizes
    shape = "micro" if quick else "135M"
    requests: dict[str, Any] = {
        "shape": shape,
        "count": count,
        "shortest": shortest,
        "longest": longest,
        "answer": answer,
    }
    options = {"requests": requests, "dtype": dtype, "device": device}
    vllm = Side("vLLM", "benchmarks.sides.vllm_engine:VLLM", options, "vllm", dtype)
    engine, batch = "benchmarks.sides.rollouts", "benchmarks.rows.rollout:TRLBatchGeneration"
    return Row(
        name,
        f"rollout, {shape} {dtype}, {count} requests, prompts {shortest}-{longest}, "
        f"answers to {answer}",
        goal,
        [
            Side(
                "tutelage",
                f"{engine}:OurEngine",
                {**options, "batch": count},
                "tutelage",
                dtype,
                True,
            ),
            Side("TRL default, chunks of 64", batch, {**options, "chunk": 64}, "peer", dtype),
            Side(
                f"TRL tuned, chunks of {count}", batch, {**options, "chunk": count}, "peer", dtype
            ),
            Side("generate_batch", f"{engine}:GenerateBatch", options, "peer", dtype),
            *([vllm] if device == "cpu" else []),
        ],
        quantities=clocks(device),
        device=device,  # type: ignore[arg-type]
        work={"kind": "rollout", "requests": requests},
    )


class TRLBatchGeneration:
    """`trl.experimental.ppo.ppo_trainer.batch_generation` and the log-probabilities it takes."""

    def __init__(
        self, requests: Mapping[str, Any], dtype: str, chunk: int, device: str = "cpu"
    ) -> None:
        """`chunk` is TRL's `local_rollout_forward_batch_size`."""
        from benchmarks.sides.requests import Requests

        self.requests = Requests(**requests)
        self.dtype, self.chunk, self.device = dtype, chunk, device

    def prepare(self) -> None:
        """Builds the model in the given format and draws a few tokens."""
        from benchmarks.sides import rollouts, shapes, trl_ppo

        model = shapes.causal_lm(self.requests.shape, 0, self.device)
        self.model = model.to(rollouts.DTYPES[self.dtype]).eval()
        trl_ppo.force_lengths(self.model, self.requests.by_prompt)
        self.tokens = rollouts.left_padded(self.requests.prompts, self.device)
        self._draw(8)

    def run(self) -> dict[str, float]:
        """Draws all answers."""
        return {"tokens": self._draw(self.requests.answer)}

    def _draw(self, longest: int) -> int:
        import torch
        from trl.experimental.ppo.ppo_trainer import batch_generation
        from trl.trainer.utils import selective_log_softmax

        from benchmarks.sides import rollouts, shapes

        config = rollouts.sampling_config(longest, ends=True)
        rows, scores = batch_generation(self.model, self.tokens, self.chunk, shapes.PAD, config)
        answers = rows[:, self.tokens.shape[1] :]
        with torch.no_grad():
            for start in range(0, len(rows), self.chunk):
                part = slice(start, start + self.chunk)
                selective_log_softmax(scores[part], answers[part])
        return rollouts.real_tokens(answers)
