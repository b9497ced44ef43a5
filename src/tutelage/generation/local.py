"""Sampling in the training process, from the policy's own weights.

Prompts are read once for all their samples; rows that have ended leave the batch. One
uniform number per row draws each token (inverse of the cumulative distribution), and the
log-probability comes from the same pass.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from tutelage.errors import GenerationError
from tutelage.generation.cache import growing_cache
from tutelage.generation.engine import Sampling
from tutelage.models.causal import autocast
from tutelage.models.policy import Policy
from tutelage.records import Completion, EncodedPrompt, StopReason

__all__ = ["LocalEngine", "draw"]

_COMPACT_AT = 0.75
"""Share of rows still being written at which the others leave the batch: to copy the cache for
every row that ends costs more than to decode a few rows in vain."""


def draw(
    logits: Float[Tensor, "batch vocabulary"], temperature: float, generator: torch.Generator
) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Draws one token per row and gives its log-probability at that temperature.

    Temperature 0 takes the most likely token; its log-probability is then at temperature 1.
    """
    if temperature == 0.0:
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        tokens = logprobs.argmax(-1)
    else:
        logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
        cumulative = logprobs.exp().cumsum(-1)
        uniform = torch.rand(
            len(logits), 1, generator=generator, device=logits.device, dtype=torch.float32
        )
        # The last entry is the sum as rounded: scaling by it keeps every draw inside.
        position = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        tokens = position.squeeze(1).clamp(max=logits.shape[1] - 1)
    return tokens, logprobs.gather(1, tokens[:, None]).squeeze(1)


@dataclass
class _Row:
    """A completion in the making."""

    prompt: EncodedPrompt
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False


class LocalEngine:
    """Samples with the policy's own modules: nothing is copied on `load_weights`."""

    name = "local"

    def __init__(
        self,
        policy: Policy,
        tokenizer: PreTrainedTokenizerBase,
        generator: torch.Generator,
        *,
        batch_size: int = 256,
    ) -> None:
        """Shares `policy`; `generator` is advanced by each call.

        Args:
            policy: whose completions are drawn.
            tokenizer: turns tokens into text.
            generator: source of the random numbers.
            batch_size: completions decoded side by side.
        """
        self.policy = policy
        self.tokenizer = tokenizer
        self.generator = generator
        self.batch_size = batch_size
        self.version = 0

    def load_weights(self, policy: Policy) -> None:
        """Counts a new version; the weights are shared already."""
        self.policy = policy
        self.version += 1

    def generate(self, prompts: Sequence[EncodedPrompt], sampling: Sampling) -> list[Completion]:
        """Draws completions; see `Engine.generate`.

        Raises:
            GenerationError: a prompt is empty, or leaves no room for its completion in the
                model's context; the policy's logits are not finite.
        """
        self._require_room(prompts, sampling)
        count = sampling.samples_per_prompt
        rows = [[_Row(prompt) for _ in range(count)] for prompt in prompts]
        # Prompts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].tokens))
        training = self.policy.model.training
        self.policy.model.eval()
        try:
            with torch.no_grad():
                for chosen in _chunks(order, max(1, self.batch_size // count)):
                    self._decode([rows[i] for i in chosen], sampling)
        finally:
            self.policy.model.train(training)
        return [self._completion(row) for group in rows for row in group]

    def _require_room(self, prompts: Sequence[EncodedPrompt], sampling: Sampling) -> None:
        context = getattr(self.policy.model.config, "max_position_embeddings", math.inf)
        for prompt in prompts:
            length = len(prompt.tokens)
            if not length:
                raise GenerationError(f"prompt {prompt.prompt.id!r} has no tokens, expected one")
            if length + sampling.max_tokens > context:
                raise GenerationError(
                    f"prompt {prompt.prompt.id!r} has {length} tokens and its completion may have "
                    f"{sampling.max_tokens}, but the model reads {context} at most: set "
                    f"max_prompt_tokens to {context - sampling.max_tokens} or less"
                )

    def _decode(self, groups: list[list[_Row]], sampling: Sampling) -> None:
        """Fills the rows of one batch, dropping those that have ended."""
        model = self.policy.model
        device = model.device
        tokens, mask = _left_padded([group[0].prompt.tokens for group in groups], device)
        cache = growing_cache(model.config)
        logits = self._forward(tokens, mask, cache)
        count = sampling.samples_per_prompt
        if count > 1:
            cache.batch_repeat_interleave(count)
            logits, mask = (x.repeat_interleave(count, 0) for x in (logits, mask))
        rows = [row for group in groups for row in group]
        stop_tokens = torch.tensor(sorted(sampling.stop_tokens), dtype=torch.long, device=device)
        writing = torch.ones(len(rows), dtype=torch.bool, device=device)
        for step in range(sampling.max_tokens):
            chosen, logprobs = draw(logits, sampling.temperature, self.generator)
            stopped = torch.isin(chosen, stop_tokens)
            _append(rows, chosen, logprobs, stopped)
            writing &= ~stopped
            left = int(writing.sum())
            if step + 1 == sampling.max_tokens or not left:
                return
            if left <= _COMPACT_AT * len(rows):
                kept = writing.nonzero().squeeze(1)
                cache.batch_select_indices(kept)
                mask, chosen, writing = mask[kept], chosen[kept], writing[kept]
                rows = [rows[i] for i in kept.tolist()]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            logits = self._forward(chosen[:, None], mask, cache)

    def _forward(self, tokens: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        with autocast(tokens.device, self.policy.backbone.compute):
            logits = self.policy.model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
        return logits[:, -1]

    def _completion(self, row: _Row) -> Completion:
        if not math.isfinite(sum(row.logprobs)):
            raise GenerationError(
                f"the completion of prompt {row.prompt.prompt.id!r} has log-probabilities that are "
                "not finite: the policy's weights or its logits have overflowed; lower the "
                "learning rate"
            )
        text = str(self.tokenizer.decode(row.tokens, skip_special_tokens=True))
        if row.prompt.prompt.mode == "chat":
            # Templates may put a space between the header and the text; it is no content.
            text = text.removeprefix(" ")
        return Completion(
            prompt_id=row.prompt.prompt.id,
            tokens=tuple(row.tokens),
            logprobs=tuple(row.logprobs),
            text=text,
            stop=StopReason.STOP_TOKEN if row.stopped else StopReason.LENGTH,
            policy_version=self.version,
            engine=self.name,
        )


def _chunks(order: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _left_padded(
    sequences: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    width = max(map(len, sequences))
    tokens = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for i, sequence in enumerate(sequences):
        tokens[i, width - len(sequence) :] = torch.tensor(sequence)
        mask[i, width - len(sequence) :] = 1
    return tokens.to(device), mask.to(device)


def _append(rows: list[_Row], tokens: Tensor, logprobs: Tensor, stopped: Tensor) -> None:
    for row, token, logprob, stop in zip(
        rows, tokens.tolist(), logprobs.tolist(), stopped.tolist(), strict=True
    ):
        if not row.stopped:
            row.tokens.append(token)
            row.logprobs.append(logprob)
            row.stopped = stop
