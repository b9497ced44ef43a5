"""Sampling in the training process, from the policy's own weights.

    prompts, by length ──prefill──> all their samples, side by side ──draw, step──┐
                                        ^            rows that have ended leave   │
                                        └──<──────────────────────────────────────┘

A prompt is read once for all its samples. Prompts of like length share a batch, so that little of
it is padding.
"""

import logging
import math
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tutelage.config.sharing import MOST_SHARES, SMALLEST_SHARE
from tutelage.distributed import Cores
from tutelage.errors import GenerationError
from tutelage.generation.draw import draw
from tutelage.generation.engine import NotFiniteError, Sampling
from tutelage.generation.plain import PlainDecoder
from tutelage.models.decoder import Decoder
from tutelage.models.memory import out_of_memory, release_memory
from tutelage.models.policy import Policy
from tutelage.records import Completion, EncodedPrompt, StopReason

__all__ = ["LocalEngine"]

_log = logging.getLogger(__name__)


@dataclass
class _Row:
    """A completion in the making."""

    prompt: EncodedPrompt
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False

    def forget(self) -> None:
        """Begins anew."""
        self.tokens, self.logprobs, self.stopped = [], [], False


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
        notify: Callable[[str], None] = _log.warning,
        cores: Cores | None = None,
    ) -> None:
        """Shares `policy`; `generator` is advanced by each call.

        Args:
            policy: whose completions are drawn.
            tokenizer: turns tokens into text.
            generator: source of the random numbers.
            batch_size: completions decoded side by side.
            notify: hears when memory runs out and there are fewer of them.
            cores: decode a share of the rows each, with random numbers of its own; what is drawn
                does not depend on how many they are.
        """
        self.policy = policy
        self.tokenizer = tokenizer
        self.generator = generator
        self.batch_size = batch_size
        self.version = 0
        self._notify = notify
        self.cores = cores
        self._most_rows = sys.maxsize
        self._decoder = _decoder(policy)

    def load_weights(self, policy: Policy) -> None:
        """Counts a new version; the weights are shared already."""
        if policy is not self.policy:
            self._decoder = _decoder(policy)
        self.policy = policy
        self.version += 1

    def generate(self, prompts: Sequence[EncodedPrompt], sampling: Sampling) -> list[Completion]:
        """Draws completions; see `Engine.generate`.

        Raises:
            GenerationError: a prompt is empty, or leaves no room for its completion in the
                model's context; memory runs out at a single completion.
            NotFiniteError: the policy's logits are not finite.
        """
        self._require_room(prompts, sampling)
        count = sampling.samples_per_prompt
        rows = [[_Row(prompt) for _ in range(count)] for prompt in prompts]
        by_length = sorted(rows, key=lambda group: len(group[0].prompt.tokens))
        training = self.policy.model.training
        self.policy.model.eval()
        try:
            with torch.no_grad():
                self._decoder.refresh()
                self._share_out(by_length, sampling)
        finally:
            self.policy.model.train(training)
        completions = [self._completion(row) for group in rows for row in group]
        if not all(math.isfinite(sum(each.logprobs)) for each in completions):
            raise NotFiniteError(completions)
        return completions

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

    def _share_out(self, groups: Sequence[Sequence[_Row]], sampling: Sampling) -> None:
        """Fills the rows, a share of them on each core."""
        rows = sum(map(len, groups))
        count = min(MOST_SHARES, rows // SMALLEST_SHARE, len(groups)) if self.cores else 1
        if self.cores is None or count < 2:
            return self._decode_all(groups, sampling, self.generator)
        seeds = torch.randint(1 << 62, (count,), generator=self.generator).tolist()

        def decode(share: int) -> None:
            source = torch.Generator(self.generator.device).manual_seed(seeds[share])
            # Dealt out in turn: all shares have short and long ones.
            self._decode_all(groups[share::count], sampling, source)

        self.cores.map(decode, range(count))

    def _decode_all(
        self, groups: Sequence[Sequence[_Row]], sampling: Sampling, source: torch.Generator
    ) -> None:
        """Fills the rows batch by batch, in smaller ones when memory runs out."""
        rest = deque(groups)
        while rest:
            size = len(rest[0])
            if size > self._most_rows:
                group = rest.popleft()
                rest.extendleft([group[self._most_rows :], group[: self._most_rows]])
                continue
            batch = []
            for _ in range(max(1, min(self.batch_size, self._most_rows) // size)):
                if rest and len(rest[0]) == size:
                    batch.append(rest.popleft())
            if not self._attempt(batch, sampling, source):
                rest.extendleft(reversed(batch))

    def _attempt(
        self, groups: Sequence[Sequence[_Row]], sampling: Sampling, source: torch.Generator
    ) -> bool:
        """Fills the rows of one batch, or none of them where memory runs out.

        Rows that had ended by then are drawn anew with the others: to keep only those would
        favour short completions.
        """
        before = source.get_state()
        try:
            self._decode(groups, sampling, source)
            return True
        except Exception as error:
            if not out_of_memory(error):
                raise
        # Here the error is gone, and with its traceback the tensors of the attempt.
        release_memory()
        source.set_state(before)
        rows = [row for group in groups for row in group]
        longest = max(len(row.prompt.tokens) for row in rows)
        if len(rows) == 1:
            raise GenerationError(
                f"memory ran out at a single completion of up to {sampling.max_tokens} tokens of "
                f"a prompt of {longest}: lower sampling.max_tokens or max_prompt_tokens, or take a "
                "smaller model"
            )
        for row in rows:
            row.forget()
        self._most_rows = len(rows) // 2
        self._notify(
            f"memory ran out at {len(rows)} completions side by side, of prompts of up to "
            f"{longest} tokens: {self._most_rows} from here on (sampling.batch_size)"
        )
        return False

    def _decode(
        self, groups: Sequence[Sequence[_Row]], sampling: Sampling, source: torch.Generator
    ) -> None:
        """Fills the rows of one batch; every prompt has as many of them."""
        device = self.policy.model.device
        tokens, start = _left_padded([group[0].prompt.tokens for group in groups], device)
        logits, cache = self._decoder.prefill(tokens, start)
        cache.repeat(len(groups[0]))
        logits = logits.repeat_interleave(len(groups[0]), 0)
        rows = [row for group in groups for row in group]
        stop_tokens = torch.tensor(sorted(sampling.stop_tokens), dtype=torch.long, device=device)
        writing = torch.ones(len(rows), dtype=torch.bool, device=device)
        # Numbers of those that have left are drawn in vain: who leaves when changes no other row.
        numbers, alive = len(rows), torch.arange(len(rows), device=device)
        room = torch.empty_like(logits, dtype=torch.float32)
        for step in range(sampling.max_tokens):
            uniform = torch.rand(numbers, generator=source, device=device)[alive]
            chosen, logprobs = draw(logits, sampling.temperature, uniform, room[: len(rows)])
            stopped = torch.isin(chosen, stop_tokens)
            _append(rows, chosen, logprobs, stopped)
            writing &= ~stopped
            left = int(writing.sum())
            if step + 1 == sampling.max_tokens or not left:
                return
            if len(rows) - left > self._decoder.idle_share * len(rows):
                kept = writing.nonzero().squeeze(1)
                cache.keep(kept)
                chosen, writing, alive = chosen[kept], writing[kept], alive[kept]
                rows = [rows[i] for i in kept.tolist()]
            logits = self._decoder.step(chosen, cache)  # type: ignore[arg-type]

    def _completion(self, row: _Row) -> Completion:
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


def _decoder(policy: Policy) -> Decoder | PlainDecoder:
    """The fast decoder where the model is of its family, its own forward pass elsewhere."""
    fast = Decoder.of(policy.model, policy.backbone.compute)
    if fast is None:
        name = type(policy.model).__name__
        _log.info("%s is decoded by its own forward pass: it is not of the Llama family", name)
    return fast or PlainDecoder(policy.model, policy.backbone.compute)


def _left_padded(
    sequences: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, "rows time"], Int[Tensor, " rows"]]:
    """Token ids that end in the same column, and the first column of each."""
    width = max(map(len, sequences))
    tokens = torch.zeros(len(sequences), width, dtype=torch.long)
    for i, sequence in enumerate(sequences):
        tokens[i, width - len(sequence) :] = torch.tensor(sequence)
    start = torch.tensor([width - len(sequence) for sequence in sequences])
    return tokens.to(device), start.to(device)


def _append(rows: Sequence[_Row], tokens: Tensor, logprobs: Tensor, stopped: Tensor) -> None:
    for row, token, logprob, stop in zip(
        rows, tokens.tolist(), logprobs.tolist(), stopped.tolist(), strict=True
    ):
        if not row.stopped:
            row.tokens.append(token)
            row.logprobs.append(logprob)
            row.stopped = stop
