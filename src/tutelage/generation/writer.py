"""A policy of this process as a writer: conversations in, the assistant's next messages out.

conversations ──chat template──> token ids ──Engine──> completions ──> texts
      └── too long ─────────────────────────────────────└─ cut off ──> errors in their places
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from tutelage.data.chat import encode_prompt
from tutelage.errors import GenerationError
from tutelage.generation.engine import Engine, Sampling
from tutelage.records import Completion, EncodedPrompt, Message, Prompt

__all__ = ["LocalWriter"]


class LocalWriter:
    """Writes with an engine, one text for each conversation."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        *,
        name: str,
        max_prompt_tokens: int,
    ) -> None:
        """Shares the engine, whose random numbers are advanced by each call.

        Args:
            engine: draws the completions.
            tokenizer: of the engine's policy.
            sampling: one sample per prompt.
            name: of the model, for provenance.
            max_prompt_tokens: conversations that are longer are failures.
        """
        self.name = name
        self._engine = engine
        self._tokenizer = tokenizer
        self._sampling = sampling
        self._max_prompt_tokens = max_prompt_tokens

    def __call__(self, conversations: Sequence[tuple[Message, ...]]) -> list[str | GenerationError]:
        """The next message of each, or why there is none."""
        prompts = [Prompt(str(i), messages) for i, messages in enumerate(conversations)]
        encoded = [
            EncodedPrompt(prompt, tuple(encode_prompt(self._tokenizer, prompt)))
            for prompt in prompts
        ]
        fitting = [each for each in encoded if len(each.tokens) <= self._max_prompt_tokens]
        completions = self._engine.generate(fitting, self._sampling) if fitting else []
        written = {each.prompt_id: self._text(each) for each in completions}
        return [written.get(each.prompt.id) or self._too_long(len(each.tokens)) for each in encoded]

    def _text(self, completion: Completion) -> str | GenerationError:
        if completion.truncated:
            return GenerationError(f"cut off at {self._sampling.max_tokens} tokens")
        return completion.text or GenerationError("nothing was written")

    def _too_long(self, length: int) -> GenerationError:
        return GenerationError(
            f"the conversation has {length} tokens, {self._max_prompt_tokens} at most are read"
        )
