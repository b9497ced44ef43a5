"""How far bfloat16 takes the gradients of an update: `python -m benchmarks.rounding`.

Of each eight rows of C6b, |gradient - gradient in float32| / |gradient in float32|, of the policy
and of the critic, whose only weights of its own are the 576 of its head:

    ours     what the parity gate compares
    sdpa     transformers row by row under autocast, by torch's kernel of attention: its limit
    eager    the same by transformers' own attention

The last two are right by definition and differ: that is what the gate's margin is for.
"""

import argparse
import sys

import torch

from benchmarks.rows.ppo import OurPPO, c6b
from benchmarks.sides.learning import both_sides_of_the_clips
from benchmarks.sides.ours import DTYPES
from benchmarks.sides.parity import plain_update, relative_error

_ROWS = 8


def main(arguments: list[str] | None = None) -> int:
    """Prints a line for each eight rows and each way."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rounding",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="toy sizes")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    mine = next(side for side in c6b(chosen.quick).sides if side.format == "bfloat16")
    side = OurPPO(**mine.options)
    side.build()
    side.run()
    actors = side.actors
    captured = actors.learner.capture(side.steps)
    for first in range(0, len(captured.batch), _ROWS):
        last = min(first + _ROWS, len(captured.batch))
        rows = both_sides_of_the_clips(captured.batch.select(range(first, last)))
        plain = actors.policy, actors.critic, rows, actors.settings
        _, exact = plain_update(*plain)
        found = {"ours": captured.gradients(rows, actors.trained)[1]}
        with torch.autocast(actors.policy.model.device.type, DTYPES[side.dtype]):
            for attention in ("sdpa", "eager"):
                found[attention] = plain_update(*plain, attention)[1]
        for way, gradients in found.items():
            policy, critic = (relative_error(gradients, exact, p) for p in ("policy", "critic"))
            print(
                f"rows {first:2} to {last - 1:2}  {way:5}  policy {policy:.4f}  critic {critic:.4f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
