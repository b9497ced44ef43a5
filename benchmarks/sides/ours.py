"""Doors into Tutelage for the sides: models, prompts, and an engine with forced lengths.

Only public names of the package are called, and what it does not offer raises `NotAvailable`.
"""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from benchmarks.core.row import NotAvailable
from benchmarks.sides import shapes
from benchmarks.sides.forcing import force
from benchmarks.sides.tokenizer import words_tokenizer
from tutelage.config import BatchConfig
from tutelage.distributed import Cores, cores_for
from tutelage.experience import Experience
from tutelage.generation import LocalEngine, Sampling
from tutelage.models import Policy
from tutelage.records import Completion, EncodedPrompt, Message, Prompt, Score, StopReason

__all__ = [
    "DTYPES",
    "ForcedEngine",
    "completions_of",
    "cores_of",
    "encoded",
    "engine",
    "experience_of",
    "new_policy",
    "require_bfloat16_storage",
    "sampling",
]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_THREADS = torch.get_num_threads()
"""The row's threads, read before a small model has its rows shared out."""


def new_policy(
    shape: str,
    dtype: str,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    device: str = "cpu",
    head_tokens: int = BatchConfig().head_tokens,
) -> Policy:
    """A policy of the given shape; `dtype` is its format of computation."""
    model = shapes.causal_lm(shape, seed, device)
    return Policy(model, temperature=temperature, compute=DTYPES[dtype], head_tokens=head_tokens)


def encoded(prompts: Sequence[Sequence[int]], vocabulary: int) -> list[EncodedPrompt]:
    """Prompts as the engine takes them; the text is the ids' words, open for a continuation."""
    tokenizer = words_tokenizer(vocabulary)
    return [
        EncodedPrompt(
            Prompt(
                str(i),
                (Message("user", tokenizer.decode(ids) + " "),),
                mode="continuation",
            ),
            tuple(ids),
        )
        for i, ids in enumerate(prompts)
    ]


def cores_of(policy: Policy) -> Cores | None:
    """The process's threads as cores with rows of their own, where the policy is small."""
    return cores_for(policy.model, _THREADS)


def sampling(longest: int, *, ends: bool, temperature: float = 1.0) -> Sampling:
    """How all sides sample; without an end token every answer has the full length."""
    stops = frozenset({shapes.END}) if ends else frozenset()
    return Sampling(stop_tokens=stops, max_tokens=longest, temperature=temperature)


class ForcedEngine(LocalEngine):
    """The engine with answer lengths given in advance; see `benchmarks.sides.forcing`.

    A forced end reports the log-probability that the policy gave it, which PPO compares with its
    own: certainty would look like a sampler gone wrong.
    """

    def force(self, lengths: Mapping[tuple[int, ...], int]) -> Self:
        """Sets the answer length of each prompt."""
        self._decoder: Any = _ForcedDecoder(self._decoder, lengths)
        return self

    def generate(self, prompts: Sequence[EncodedPrompt], sampling: Sampling) -> list[Completion]:
        """One completion for each prompt."""
        ends = self._decoder.ends = {}
        drawn = super().generate(prompts, sampling)
        for i, (prompt, completion) in enumerate(zip(prompts, drawn, strict=True)):
            if not completion.truncated:
                logits = ends[prompt.tokens].float() / sampling.temperature
                believed = float(torch.log_softmax(logits, -1)[shapes.END])
                drawn[i] = replace(completion, logprobs=(*completion.logprobs[:-1], believed))
        return drawn


class _ForcedDecoder:
    """A decoder whose logits end each row in time. Rows are told apart through their cache."""

    def __init__(self, decoder: Any, lengths: Mapping[tuple[int, ...], int]) -> None:
        self._decoder, self._lengths = decoder, lengths
        self.ends: dict[tuple[int, ...], Tensor] = {}
        """Logits of each row before its end was forced, by prompt."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def prefill(self, tokens: Tensor, start: Tensor) -> tuple[Tensor, Any]:
        logits, cache = self._decoder.prefill(tokens, start)
        rows = zip(tokens.tolist(), start.tolist(), strict=True)
        cache.prompts = [tuple(row[first:]) for row, first in rows]
        lengths = [self._lengths[prompt] for prompt in cache.prompts]
        cache.left = torch.tensor(lengths, device=tokens.device)
        _follow(cache)
        return self._end(logits, cache), cache

    def step(self, tokens: Tensor, cache: Any) -> Tensor:
        cache.left -= 1
        return self._end(self._decoder.step(tokens, cache), cache)

    def _end(self, logits: Tensor, cache: Any) -> Tensor:
        last = cache.left == 1
        for row in last.nonzero().squeeze(1).tolist():
            self.ends[cache.prompts[row]] = logits[row].clone()
        return force(logits, last)


def _follow(cache: Any) -> None:
    """Makes prompts and remaining lengths go where the cache's rows go."""
    keep, join = cache.keep, getattr(cache, "join", None)

    def keep_rows(rows: Tensor) -> None:
        keep(rows)
        cache.left = cache.left[rows]
        cache.prompts = [cache.prompts[row] for row in rows.tolist()]

    def join_rows(other: Any) -> None:
        assert join is not None
        join(other)
        cache.left = torch.cat([cache.left, other.left])
        cache.prompts = cache.prompts + other.prompts

    cache.keep, cache.join = keep_rows, join_rows


def engine(
    policy: Policy, vocabulary: int, lengths: Mapping[tuple[int, ...], int] | None, batch: int
) -> LocalEngine:
    """The engine under test, with forced lengths where some are given."""
    generator = torch.Generator(policy.model.device).manual_seed(0)
    tokenizer = words_tokenizer(vocabulary)
    cores = cores_of(policy)
    if lengths is None:
        return LocalEngine(policy, tokenizer, generator, batch_size=batch, cores=cores)
    chosen = ForcedEngine(policy, tokenizer, generator, batch_size=batch, cores=cores)
    if not hasattr(chosen, "_decoder"):
        raise NotAvailable("the engine has no door through which answer lengths can be forced")
    return chosen.force(lengths)


def require_bfloat16_storage(policy: Policy, shape: str) -> None:
    """Refuses an engine that computes in bfloat16 but keeps its weights in float32.

    Counts the live bfloat16 matrices, to be called after a first rollout.
    """
    gc.collect()
    held = sum(
        candidate.numel()
        for candidate in gc.get_objects()
        if issubclass(type(candidate), Tensor)
        and candidate.dtype is torch.bfloat16
        and candidate.ndim == 2
    )
    if held < shapes.weights(shape)[0]:
        raise NotAvailable(
            "no weights in bfloat16: the engine computes by autocast over float32 weights"
        )


def completions_of(answers: Sequence[Sequence[int]]) -> list[Completion]:
    """Given answers as if they had been sampled."""
    return [
        Completion(str(i), tuple(ids), (0.0,) * len(ids), "", StopReason.STOP_TOKEN)
        for i, ids in enumerate(answers)
    ]


def experience_of(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], device: str = "cpu"
) -> Experience:
    """Prompts and answers laid out in rows."""
    scores = [Score(0.0)] * len(answers)
    rows = Experience.collate(prompts, completions_of(answers), scores, pad=shapes.PAD)
    return rows.to(device)
