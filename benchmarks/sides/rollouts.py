"""Sides that sample: the engine under test, transformers `generate` and `generate_batch`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from benchmarks.core.row import Check
from benchmarks.sides import shapes
from benchmarks.sides.forcing import ForcedLengths
from benchmarks.sides.requests import Requests

__all__ = ["Generate", "GenerateBatch", "OurEngine", "left_padded", "real_tokens"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class OurEngine:
    """`LocalEngine.generate`, log-probability of each token included."""

    def __init__(
        self, requests: Mapping[str, Any], dtype: str, batch: int, device: str = "cpu"
    ) -> None:
        """Takes `Requests` as a mapping, and how many rows are decoded side by side."""
        self.requests = Requests(**requests)
        self.dtype, self.batch, self.device = dtype, batch, device

    def prepare(self) -> None:
        """Builds the engine and draws a few tokens; bfloat16 means weights in bfloat16."""
        from benchmarks.sides import ours

        requests = self.requests
        vocabulary = shapes.SHAPES[requests.shape]["vocab_size"]
        self.policy = ours.new_policy(requests.shape, self.dtype, device=self.device)
        lengths = None if requests.full else requests.by_prompt
        self.engine = ours.engine(self.policy, vocabulary, lengths, self.batch)
        self.free_engine = ours.engine(self.policy, vocabulary, None, self.batch)
        self.prompts = ours.encoded(requests.prompts, vocabulary)
        self.engine.generate(self.prompts, ours.sampling(8, ends=not requests.full))
        if self.dtype == "bfloat16":
            ours.require_bfloat16_storage(self.policy, requests.shape)
        self.sampling = ours.sampling(requests.answer, ends=not requests.full)

    def check(self) -> list[Check]:
        """Log-probabilities of some answers, and the distribution of a first token."""
        from benchmarks.sides import parity

        chosen = self.prompts[:: max(1, len(self.prompts) // 8)][:8]
        completions = self.engine.generate(chosen, self.sampling)
        checks = parity.logprob_gate(
            self.policy, chosen, completions, self.dtype, lengths_forced=not self.requests.full
        )
        return [*checks, *parity.sampling_gate(self.free_engine, shapes.FIRST_WORD, draws=1024)]

    def run(self) -> dict[str, float]:
        """Draws all answers."""
        completions = self.engine.generate(self.prompts, self.sampling)
        return {"tokens": sum(len(completion.tokens) for completion in completions)}


class Generate:
    """transformers `generate`, all requests in one batch, log-probabilities from its scores."""

    def __init__(
        self, requests: Mapping[str, Any], dtype: str, chunk: int | None = None, device: str = "cpu"
    ) -> None:
        """`chunk` rows at a time; all at once when absent."""
        self.requests = Requests(**requests)
        self.dtype, self.device = dtype, device
        self.chunk = chunk or self.requests.count

    def prepare(self) -> None:
        """Builds the model in the given format and draws a few tokens."""
        model = shapes.causal_lm(self.requests.shape, 0, self.device)
        self.model = model.to(DTYPES[self.dtype]).eval()
        if self.requests.full:
            self.model.generation_config.eos_token_id = None
        self._answer(8)

    def run(self) -> dict[str, float]:
        """Draws all answers."""
        return {"tokens": self._answer(self.requests.answer)}

    def _answer(self, longest: int) -> int:
        prompts = self.requests.prompts
        parts = (prompts[i : i + self.chunk] for i in range(0, len(prompts), self.chunk))
        return sum(self._draw(part, longest) for part in parts)

    @torch.no_grad()
    def _draw(self, prompts: Sequence[Sequence[int]], longest: int) -> int:
        tokens = left_padded(prompts, self.device)
        forced = [] if self.requests.full else [ForcedLengths(self.requests.by_prompt)]
        output = self.model.generate(
            input_ids=tokens,
            attention_mask=(tokens != shapes.PAD).long(),
            generation_config=sampling_config(longest, ends=not self.requests.full),
            logits_processor=transformers.LogitsProcessorList(forced),
            return_dict_in_generate=True,
            output_scores=True,
        )
        answers = output.sequences[:, tokens.shape[1] :]
        for scores, drawn in zip(output.scores, answers.T, strict=True):
            scores.log_softmax(-1).gather(1, drawn[:, None])
        return answers.numel() if self.requests.full else real_tokens(answers)


class GenerateBatch:
    """transformers `generate_batch`: continuous batching, cache and batch limits set."""

    def __init__(self, requests: Mapping[str, Any], dtype: str, device: str = "cpu") -> None:
        """Takes `Requests` as a mapping."""
        self.requests = Requests(**requests)
        self.dtype, self.device = dtype, device

    def prepare(self) -> None:
        """Builds the model in the given format and draws a few tokens."""
        model = shapes.causal_lm(self.requests.shape, 0, self.device)
        self.model = model.to(DTYPES[self.dtype]).eval()
        self._draw(8)

    def run(self) -> dict[str, float]:
        """Draws all answers."""
        return {"tokens": self._draw(self.requests.answer)}

    def _draw(self, longest: int) -> int:
        requests = self.requests
        manager = self.model.continuous_batching_context_manager(
            generation_config=sampling_config(longest, ends=False),
            continuous_batching_config=self._config(longest),
            block=True,
            timeout=5,
        )
        drawn = 0
        with manager as running:
            for prompt, length in zip(requests.prompts, requests.lengths, strict=True):
                running.add_request(prompt, max_new_tokens=min(length, longest), eos_token_id=-1)
            waiting = len(requests.prompts)
            while waiting:
                output = running.get_result(timeout=1)
                if output is not None and output.is_finished():
                    assert len(output.logprobs) == len(output.generated_tokens)
                    drawn += len(output.generated_tokens)
                    waiting -= 1
                elif output is None and not running.is_running():
                    raise RuntimeError("continuous batching stopped before all requests were done")
        return drawn

    def _config(self, longest: int) -> Any:
        if self.device != "cpu":
            return transformers.ContinuousBatchingConfig(return_logprobs=True)
        page = 32
        longest_row = self.requests.longest + longest
        blocks = self.requests.count * -(-longest_row // page) + 1
        known = transformers.ContinuousBatchingConfig.__dataclass_fields__
        size = "page_size" if "page_size" in known else "block_size"
        return transformers.ContinuousBatchingConfig(
            return_logprobs=True, num_blocks=blocks, max_batch_tokens=512, **{size: page}
        )


def sampling_config(longest: int, *, ends: bool) -> transformers.GenerationConfig:
    """The whole distribution at temperature 1, as all sides sample."""
    return transformers.GenerationConfig(
        do_sample=True,
        max_new_tokens=longest,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=shapes.PAD,
        eos_token_id=shapes.END if ends else None,
    )


def left_padded(prompts: Sequence[Sequence[int]], device: str) -> Tensor:
    """Token ids `[rows, longest]`, padding in front."""
    width = max(map(len, prompts))
    rows = [[shapes.PAD] * (width - len(ids)) + list(ids) for ids in prompts]
    return torch.tensor(rows, device=device)


def real_tokens(answers: Tensor) -> int:
    """Tokens up to each row's end token, which counts; padding behind it does not."""
    ended = (answers == shapes.END).long().cumsum(1)
    return int(((ended == 0) | ((ended == 1) & (answers == shapes.END))).sum())
