"""H3: the update of a policy on a GPU, 64k real tokens.

Timed: forward, backward and optimiser step over prompts and given answers, one minibatch, one
epoch, as PPO makes them. The share of the limit is the model FLOP utilisation: 6 N flops for each
real token over what a large matrix product reaches in the same run.

    ours   `Learner.fit` with the loss that `ppo` gives it, rows of like length together, in
           micro-batches of 64k tokens (135M) or 16k (0.6B, 1B)
    peers  the epochs of `PPOTrainer.train` on the same rows, defaults and tuned;
           a padded loop around the model of transformers, without and with Liger's kernels

Only the policy is asked about. PPO cannot do without a critic, so both systems are given one of
toy size, which takes about no time.
"""

from typing import Any

from benchmarks.core.row import Row, Side, clocks

__all__ = ["h3", "h3b", "h3c", "training_requests"]

_CRITIC = "micro"
_PADDED = "benchmarks.sides.padded:PaddedUpdate"
_TRL = "benchmarks.sides.trl_ppo:TRLTrainer"


def training_requests(shape: str, quick: bool) -> dict[str, Any]:
    """384 rows have 66,371 tokens."""
    if quick:
        toy = "micro qwen3" if shape == "0.6B" else "micro"
        return {"shape": toy, "count": 16, "shortest": 4, "longest": 12, "answer": 16}
    return {"shape": shape, "count": 384, "shortest": 32, "longest": 128, "answer": 256}


def h3(quick: bool) -> Row:
    """135M, against TRL and transformers."""
    requests = training_requests("135M", quick)
    options = {"requests": requests, "critic_shape": _CRITIC, "device": "cuda"}
    loop = {**options, "epochs": 1, "only": "update"}
    peers = [
        Side("TRL default", _TRL, loop, "peer", "bfloat16"),
        Side(
            "TRL tuned",
            _TRL,
            {**loop, "microbatch": 8 if quick else 32},
            "peer",
            "bfloat16",
        ),
    ]
    goal = ">= 4x TRL, >= 40 % of the limit"
    return _row("H3", requests, 65536, goal, [*peers, *_padded(requests)])


def h3b(quick: bool) -> Row:
    """0.6B: of its peer there are published figures only."""
    return _row("H3b", training_requests("0.6B", quick), 16384, ">= 45 % of the limit", [])


def h3c(quick: bool) -> Row:
    """1B, against transformers."""
    requests = training_requests("1B", quick)
    return _row("H3c", requests, 16384, ">= 55 % of the limit", _padded(requests))


def _padded(requests: dict[str, Any]) -> list[Side]:
    options = {"requests": requests, "dtype": "bfloat16", "device": "cuda"}
    return [
        Side("transformers", _PADDED, options, "peer", "bfloat16"),
        Side("transformers with Liger", _PADDED, {**options, "liger": True}, "peer", "bfloat16"),
    ]


def _row(name: str, requests: dict[str, Any], budget: int, goal: str, peers: list[Side]) -> Row:
    options = {
        "requests": requests,
        "dtype": "bfloat16",
        "microbatch_tokens": budget,
        "critic_shape": _CRITIC,
        "device": "cuda",
    }
    ours = "benchmarks.rows.update:OurUpdate"
    return Row(
        name,
        f"update of a policy, {requests['shape']} bfloat16, {requests['count']} rows, prompts "
        f"{requests['shortest']}-{requests['longest']}, answers to {requests['answer']}",
        goal,
        [Side("tutelage", ours, options, format="bfloat16", gated=True), *peers],
        quantities=clocks("cuda"),
        device="cuda",
        work={"kind": "update", "requests": requests, "epochs": 1, "trunks": 1},
    )
