"""TRL's PPO trainer as a side: built from defaults or tuned settings, one update at a time.

Nothing of TRL is copied: `PPOTrainer.train()` runs as released, for one batch. Answer lengths
are forced through a logits processor, and the phases of an update are told apart by three
functions that it calls in between: `np.random.permutation` at the head of each epoch,
`gather_for_metrics` after the last.
"""

import functools
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers

from benchmarks.sides import shapes
from benchmarks.sides.clock import now
from benchmarks.sides.forcing import ForcedLengths
from benchmarks.sides.requests import Requests
from benchmarks.sides.tokenizer import words_tokenizer

__all__ = ["TRLTrainer", "force_lengths"]


def force_lengths(model: Any, lengths: Mapping[tuple[int, ...], int]) -> None:
    """Makes every `model.generate` end its rows at the given lengths."""
    processors = transformers.LogitsProcessorList([ForcedLengths(lengths)])
    model.generate = functools.partial(model.generate, logits_processor=processors)


class TRLTrainer:
    """One PPO update per run, from sampling to the last optimiser step."""

    def __init__(
        self,
        requests: Mapping[str, Any],
        epochs: int = 4,
        bf16: bool = True,
        microbatch: int = 8,
        chunk: int = 64,
        only: str | None = None,
        device: str = "cpu",
        critic_shape: str | None = None,
    ) -> None:
        """TRL's own defaults are bf16 autocast, micro-batches of 8 rows and chunks of 64.

        Args:
            requests: `Requests` as a mapping; all of them make up one batch.
            epochs: passes over the batch.
            bf16: autocast to bfloat16 over float32 weights, the trainer's only bfloat16.
            microbatch: `per_device_train_batch_size`.
            chunk: `local_rollout_forward_batch_size`.
            only: `update` counts the epochs alone and takes the rollout as given.
            device: where the trainer puts its models by itself.
            critic_shape: of the value model, the policy's when absent.
        """
        self.requests = Requests(**requests)
        self.epochs, self.bf16, self.microbatch, self.chunk = epochs, bf16, microbatch, chunk
        self.only = only
        self.device, self.critic_shape = device, critic_shape
        self.at_first_epoch: Callable[[], None] = lambda: None
        self.after_last_epoch: Callable[[], None] = lambda: None

    def prepare(self) -> None:
        """Builds trainer and models and runs one update."""
        self.build()
        self.run()

    def build(self, seed: int = 0, forced: bool = True, **changes: Any) -> None:
        """Models of the row's shape, and the trainer around them.

        Args:
            seed: of the weights.
            forced: answers have the lengths of the requests, or else those that the policy likes.
            changes: arguments of `PPOConfig` that replace those of a single update.
        """
        from datasets import Dataset
        from trl.experimental.ppo import PPOTrainer, ppo_trainer

        requests, shape = self.requests, self.requests.shape
        tokenizer = words_tokenizer(shapes.SHAPES[shape]["vocab_size"])
        policy = shapes.causal_lm(shape, seed)
        self._clocks: list[tuple[float, float]] = []
        if self.only == "update":
            _answer_at_once(ppo_trainer, requests)
        elif forced:
            force_lengths(policy, requests.by_prompt)
        self.trainer = PPOTrainer(
            args=self._arguments(changes),
            processing_class=tokenizer,
            model=policy,
            ref_model=shapes.causal_lm(shape, seed),
            reward_model=shapes.classifier(shape, seed + 1),
            value_model=shapes.classifier(self.critic_shape or shape, seed + 2, words_of=shape),
            train_dataset=Dataset.from_dict({"input_ids": requests.prompts}),
        )
        self._watch()

    def _arguments(self, changes: Mapping[str, Any]) -> Any:
        from trl.experimental.ppo import PPOConfig

        count = self.requests.count
        settings = {
            "output_dir": tempfile.mkdtemp(prefix="trl-benchmark-"),
            "total_episodes": count,
            "per_device_train_batch_size": self.microbatch,
            "gradient_accumulation_steps": count // self.microbatch,
            "num_ppo_epochs": self.epochs,
            "local_rollout_forward_batch_size": self.chunk,
            "response_length": self.requests.answer,
            "stop_token": "eos",
            "bf16": self.bf16,
            "use_cpu": self.device == "cpu",
            "lr_scheduler_type": "constant",
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        return PPOConfig(**{**settings, **changes})

    def _watch(self) -> None:
        """Notes the clocks when the first epoch begins and when the last has ended."""
        import numpy

        permutation = numpy.random.permutation
        gather = self.trainer.accelerator.gather_for_metrics

        def at_an_epoch(*arguments: Any) -> Any:
            if not self._clocks:
                self.at_first_epoch()
                self._clocks.append(now(self.device))
            return permutation(*arguments)

        def after_the_epochs(*arguments: Any) -> Any:
            if len(self._clocks) == 1:
                self._clocks.append(now(self.device))
                self.after_last_epoch()
            return gather(*arguments)

        numpy.random.permutation = at_an_epoch
        self.trainer.accelerator.gather_for_metrics = after_the_epochs

    def run(self) -> dict[str, float]:
        """One update; with `only="update"` the clocks are those of the epochs."""
        self._clocks.clear()
        self.trainer.train()
        (wall, cpu), (wall_end, cpu_end) = self._clocks
        update = {"update_wall_s": wall_end - wall, "update_cpu_s": cpu_end - cpu}
        tokens = {"tokens": float(sum(self.requests.lengths))}
        if self.only == "update":
            return {**tokens, "wall_s": wall_end - wall, "cpu_s": cpu_end - cpu}
        return {**tokens, **update}


def _answer_at_once(module: Any, requests: Requests) -> None:
    """Replaces the rollout by given answers: what is not timed need not be computed."""
    answer = dict(zip(map(tuple, requests.prompts), requests.answers, strict=True))

    def batch_generation(model: Any, queries: Any, *_: Any) -> Any:
        width = requests.answer
        rows = []
        for row in queries.tolist():
            ids = answer[tuple(token for token in row if token != shapes.PAD)]
            rows.append([*ids, *[shapes.PAD] * (width - len(ids))])
        answers = torch.tensor(rows, device=queries.device)
        vocabulary = model.config.vocab_size
        flat = torch.zeros(1, 1, 1, device=queries.device)
        return torch.cat([queries, answers], 1), flat.expand(*answers.shape, vocabulary)

    module.batch_generation = batch_generation
