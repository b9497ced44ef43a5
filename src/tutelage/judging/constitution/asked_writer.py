"""A model that writes, asked as judges are: once each text, within the budget, again if it helps.

conversations ──`concurrency` at a time──> Asker ──> texts, or why there is none
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from tutelage.errors import GenerationError, JudgeError
from tutelage.judging.asking import Asker, BudgetSpentError, GivenUpError
from tutelage.judging.constitution.writer import Conversation
from tutelage.judging.loop_thread import AskerThread
from tutelage.judging.reply import JudgeRequest

__all__ = ["AskedWriter"]


class AskedWriter:
    """Asks a chat model, one conversation per request."""

    def __init__(self, asker: Asker, *, max_tokens: int = 512, temperature: float = 0.7) -> None:
        """Prepares; nothing is asked yet.

        Args:
            asker: of the model; its cache keeps the texts.
            max_tokens: of a text; one that is cut off there is a failure.
            temperature: of the texts.
        """
        self.asker, self.name = asker, asker.model.name
        self._max_tokens, self._temperature = max_tokens, temperature
        self._thread = AskerThread(asker, "writer")

    def __call__(self, conversations: Sequence[Conversation]) -> list[str | GenerationError]:
        """See `Writer`. Equal conversations of one call are given texts of their own.

        Raises:
            GenerationError: the model cannot be asked, or another text might exceed the budget.
                Texts so far are in the cache.
        """
        return self._thread.run(self._write_all(conversations))

    def close(self) -> None:
        """Closes connections and the cache; closing twice is harmless."""
        self._thread.close()

    async def _write_all(
        self, conversations: Sequence[Conversation]
    ) -> list[str | GenerationError]:
        seen: Counter[Conversation] = Counter()
        writing = []
        for conversation in conversations:
            writing.append(self._write(conversation, seen[conversation]))
            seen[conversation] += 1
        tasks = [asyncio.ensure_future(each) for each in writing]
        try:
            return list(await asyncio.gather(*tasks))
        except BudgetSpentError as error:
            raise GenerationError(self._spent()) from error
        except JudgeError as error:
            raise GenerationError(str(error)) from error
        finally:
            # Nothing is left of them unless one has ended all.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.asker.finish(cancel=True)

    async def _write(self, conversation: Conversation, sample: int) -> str | GenerationError:
        request = JudgeRequest(
            conversation,
            (),
            self._max_tokens,
            self._temperature,
            logprobs=False,
            sample=sample,
        )
        content = {"messages": [message.to_json() for message in conversation]}
        try:
            reply = (await self.asker.ask(content, request)).reply
        except GivenUpError as error:
            return GenerationError(str(error))
        if reply.cut:
            return GenerationError(f"cut off at {self._max_tokens} tokens")
        return reply.text

    def _spent(self) -> str:
        spent = self.asker.cache.spent
        return (
            f"{self.name}: another text might exceed the budget, {spent.tokens} tokens are spent. "
            "Texts so far are kept: raise it and run the same again to go on"
        )
