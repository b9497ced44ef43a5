"""C10: from starting Python to the first sampled token, tiny, files in the disk cache.

Each repeat is a process of its own; the clock starts when the kernel starts the process.

    ours      imports, a tiny model, `LocalEngine.generate` of one token
    peer      imports of TRL's PPO, the trainer around tiny models, `batch_generation` of one token
    baseline  importing torch and the model class of transformers, and nothing else
"""

import os
import time
from pathlib import Path

from benchmarks.core.row import Row, Side

__all__ = ["ImportsOnly", "OurStart", "TRLStart", "c10", "since_start"]

_REQUESTS = {"count": 8, "shortest": 8, "longest": 8, "answer": 4}


def c10(quick: bool) -> Row:
    """tiny."""
    requests = {"shape": "micro" if quick else "tiny", **_REQUESTS}
    here, options = "benchmarks.rows.start", {"requests": requests}
    return Row(
        "C10",
        "start of Python to the first sampled token, tiny",
        "<= 0.5x, that is >= 2 times sooner; <= 2 s beyond the imports",
        [
            Side("tutelage", f"{here}:OurStart", options),
            Side("TRL", f"{here}:TRLStart", options, "peer"),
            Side("imports of torch and transformers", f"{here}:ImportsOnly", {}, "peer"),
        ],
        fresh=True,
    )


class OurStart:
    """Policy and engine from nothing."""

    def __init__(self, requests: dict) -> None:
        """Takes `Requests` as a mapping."""
        self.requests = requests

    def prepare(self) -> None:
        """Nothing: all of it is timed."""

    def run(self) -> dict[str, float]:
        """One token for each prompt."""
        from benchmarks.sides import ours, shapes
        from benchmarks.sides.requests import Requests

        requests = Requests(**self.requests)
        vocabulary = shapes.SHAPES[requests.shape]["vocab_size"]
        policy = ours.new_policy(requests.shape, "float32")
        engine = ours.engine(policy, vocabulary, None, requests.count)
        engine.generate(ours.encoded(requests.prompts, vocabulary), ours.sampling(1, ends=True))
        return since_start()


class TRLStart:
    """TRL's trainer from nothing."""

    def __init__(self, requests: dict) -> None:
        """Takes `Requests` as a mapping."""
        self.requests = requests

    def prepare(self) -> None:
        """Nothing: all of it is timed."""

    def run(self) -> dict[str, float]:
        """One token for each prompt, with the trainer built as a script must."""
        from trl.experimental.ppo.ppo_trainer import batch_generation

        from benchmarks.sides import rollouts, shapes, trl_ppo

        side = trl_ppo.TRLTrainer(self.requests)
        side.build()
        tokens = rollouts.left_padded(side.requests.prompts, "cpu")
        config = rollouts.sampling_config(1, ends=True)
        batch_generation(side.trainer.policy_model, tokens, side.chunk, shapes.PAD, config)
        return since_start()


class ImportsOnly:
    """What both sides must import."""

    def prepare(self) -> None:
        """Nothing: all of it is timed."""

    def run(self) -> dict[str, float]:
        """The imports."""
        import torch  # noqa: F401
        from transformers import LlamaForCausalLM  # noqa: F401

        return since_start()


def since_start() -> dict[str, float]:
    """Wall and CPU seconds of this process so far."""
    ticks = int(Path("/proc/self/stat").read_text("utf-8").rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text("utf-8").split()[0])
    return {
        "wall_s": uptime - ticks / os.sysconf("SC_CLK_TCK"),
        "cpu_s": time.process_time(),
    }
