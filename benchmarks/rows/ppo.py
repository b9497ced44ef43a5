"""C5, C6, H4: a whole PPO update, from prompts to the last optimiser step.

Timed: sampling with forced lengths, scoring by reference, critic and reward model, advantages,
four epochs over one minibatch.

    ours   one step of `ppo` with `LocalEngine`, a reward model on text, separate critic
    peer   one batch of `PPOTrainer.train` of the last TRL that has it: its defaults (autocast to
           bfloat16, micro-batches of 8, chunks of 64), and tuned: float32 or autocast,
           micro-batches of 32, one chunk; of 135M on a CPU micro-batches of 16, since with 32 it
           ran out of 24 GiB beside ours (benchmarks/results/C6b.json, f0ec825)

The algorithm is the same: clips, coefficients, lambda, temperature, AdamW and its rate are TRL's
defaults on both sides. C6 shares one trunk between policy and critic, and C6f freezes its lowest
three quarters besides: other algorithms with the same purpose, measured against the same peer.

All sides of a row are in memory at once. So those of 135M on the CPU have one peer each: the
defaults in C5b, tuned in float32 in the others.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.core.row import Check, Row, Side, clocks

__all__ = ["OurPPO", "c5", "c5b", "c5bt", "c6", "c6b", "c6bf", "c6f", "h4", "h4b", "ppo_requests"]

_PEER = "benchmarks.sides.trl_ppo:TRLTrainer"
_OURS = "benchmarks.rows.ppo:OurPPO"
_FROZEN_SHARE = 0.75
_DEFAULT, _BFLOAT16, _FLOAT32 = "TRL default", "TRL tuned bfloat16", "TRL tuned float32"


def ppo_requests(name: str, quick: bool) -> dict[str, Any]:
    """C5: tiny, 64 episodes to 128 tokens. C5b: 135M, 32 to 64. H4: 135M, 512 to 256."""
    if quick:
        sizes: tuple[Any, ...] = ("micro", 16, 4, 12, 16)
    else:
        sizes = {
            "C5": ("tiny", 64, 16, 64, 128),
            "C5b": ("135M", 32, 16, 64, 64),
            "H4": ("135M", 512, 32, 128, 256),
        }[name]
    return dict(zip(("shape", "count", "shortest", "longest", "answer"), sizes, strict=True))


def c5(quick: bool) -> Row:
    """tiny."""
    return _row("C5", ppo_requests("C5", quick), ">= 4x, >= 60 % of the limit")


def c5b(quick: bool) -> Row:
    """135M, against the peer's defaults."""
    goal = ">= 4x, >= 55 % of the bfloat16 limit"
    return _row("C5b", ppo_requests("C5b", quick), goal, peers=(_DEFAULT,))


def c5bt(quick: bool) -> Row:
    """135M, against the peer tuned in float32."""
    goal = ">= 4x, >= 55 % of the bfloat16 limit"
    return _row("C5bt", ppo_requests("C5b", quick), goal, peers=(_FLOAT32,))


def c6(quick: bool) -> Row:
    """tiny, one trunk."""
    return _row("C6", ppo_requests("C5", quick), ">= 8x", trunk="shared")


def c6b(quick: bool) -> Row:
    """135M, one trunk."""
    requests = ppo_requests("C5b", quick)
    return _row("C6b", requests, ">= 8x", trunk="shared", peers=(_FLOAT32,))


def c6f(quick: bool) -> Row:
    """tiny, one trunk, most of it frozen."""
    return _row("C6f", ppo_requests("C5", quick), ">= 12x", trunk="shared", frozen=True)


def c6bf(quick: bool) -> Row:
    """135M, one trunk, most of it frozen."""
    requests = ppo_requests("C5b", quick)
    return _row("C6bf", requests, ">= 12x", trunk="shared", frozen=True, peers=(_FLOAT32,))


def h4(quick: bool) -> Row:
    """135M on a GPU."""
    goal = "<= 2 s, >= 15x default, >= 6x tuned, >= 37 % of the limit"
    return _row("H4", ppo_requests("H4", quick), goal, device="cuda")


def h4b(quick: bool) -> Row:
    """135M on a GPU, one trunk."""
    return _row("H4b", ppo_requests("H4", quick), "<= 1.2 s", trunk="shared", device="cuda")


def _row(
    name: str,
    requests: dict[str, Any],
    goal: str,
    *,
    trunk: str = "own",
    frozen: bool = False,
    device: str = "cpu",
    peers: Sequence[str] = (_DEFAULT, _BFLOAT16, _FLOAT32),
) -> Row:
    count, shape = requests["count"], requests["shape"]
    layers = _frozen_layers(shape) if frozen else 0
    options = {"requests": requests, "device": device}
    mine = {**options, "trunk": trunk, "frozen_layers": layers}
    largest = 16 if (shape, device) == ("135M", "cpu") else 32
    tuned = {**options, "microbatch": min(largest, count), "chunk": count}
    # The formats of the goals; the gradient of a tiny critic misses the bfloat16 gate besides.
    formats = {"tiny": ("float32",), "135M": ("bfloat16",)}.get(shape, ("float32", "bfloat16"))
    sides = [
        *(
            Side(f"tutelage {f}", _OURS, {**mine, "dtype": f}, format=f, gated=True)
            for f in formats
        ),
        Side(_DEFAULT, _PEER, options, "peer", "bfloat16"),
        Side(_BFLOAT16, _PEER, {**tuned, "bf16": True}, "peer", "bfloat16"),
    ]
    if device == "cpu":
        sides.append(Side(_FLOAT32, _PEER, {**tuned, "bf16": False}, "peer"))
    sides = [side for side in sides if side.ours or side.name in peers]
    kind = ", one trunk" * (trunk == "shared") + f", {layers} layers frozen" * frozen
    return Row(
        name,
        f"PPO update, {shape}, {count} episodes, answers to {requests['answer']}, 4 epochs{kind}",
        goal,
        sides,
        quantities=clocks(device),
        device=device,  # type: ignore[arg-type]
        work={
            "kind": "ppo",
            "requests": requests,
            "epochs": 4,
            "trunks": 1 if trunk == "shared" else 2,
            "frozen_layers": layers,
        },
    )


def _frozen_layers(shape: str) -> int:
    from benchmarks.sides.shapes import SHAPES

    return int(_FROZEN_SHARE * SHAPES[shape]["num_hidden_layers"])


class OurPPO:
    """One step of `ppo` per run."""

    def __init__(
        self,
        requests: Mapping[str, Any],
        dtype: str = "float32",
        microbatch_tokens: int | None = None,
        device: str = "cpu",
        **options: Any,
    ) -> None:
        """`microbatch_tokens` is the budget of one forward and backward pass.

        Further options are those of `benchmarks.sides.learning.Actors`.
        """
        from benchmarks.sides.requests import Requests

        self.requests = Requests(**requests)
        self.dtype, self.device, self.options = dtype, device, options
        self.microbatch_tokens = microbatch_tokens or (65536 if device == "cuda" else 1024)

    def prepare(self) -> None:
        """Builds everything and takes two steps: the second one's memory is the first one's."""
        self.build()
        self.run()
        self.run()

    def build(self) -> None:
        """Models, engine and the generator of steps."""
        from benchmarks.sides import learning, ours, shapes

        requests = self.requests
        vocabulary = shapes.SHAPES[requests.shape]["vocab_size"]
        self.actors = learning.Actors(
            requests, 4, self.dtype, self.microbatch_tokens, self.device, **self.options
        )
        policy = self.actors.policy
        self.engine = ours.engine(policy, vocabulary, requests.by_prompt, requests.count)
        self.free_engine = ours.engine(policy, vocabulary, None, requests.count)
        self.steps = self.actors.steps(requests, self.engine, self.actors.model_reward())

    def check(self) -> list[Check]:
        """Sampling and log-probabilities of the engine; loss, gradients and step of the update."""
        from benchmarks.sides import learning, ours, parity, shapes

        policy, requests = self.actors.policy, self.requests
        prompts = ours.encoded(requests.prompts[:8], len(self.actors.tokenizer))
        self.engine.load_weights(policy)
        self.free_engine.load_weights(policy)
        drawn = self.engine.generate(prompts, learning.ppo_sampling(requests))
        captured = self.actors.learner.capture(
            self.actors.steps(requests, self.actors.scripted(requests), learning.no_reward)
        )
        return [
            *parity.logprob_gate(policy, prompts, drawn, self.dtype, lengths_forced=True),
            *parity.sampling_gate(self.free_engine, shapes.FIRST_WORD, draws=1024),
            *learning.update_parity(self.actors, captured, self.dtype),
        ]

    def run(self) -> dict[str, float]:
        """One step: sample, score, update."""
        step = next(self.steps)
        return {"tokens": float(sum(len(completion.tokens) for completion in step.completions))}
