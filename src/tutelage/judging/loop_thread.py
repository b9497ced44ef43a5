"""An event loop for callers that have none, or have one running already."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from tutelage.judging.asking import Asker

__all__ = ["AskerThread", "LoopThread"]

Value = TypeVar("Value")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        """Starts the thread, under the name."""
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Waits for the work; an exception here, such as Ctrl-C, cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        """Ends the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class AskerThread:
    """The event loop of an asker, from its first work until it is closed."""

    def __init__(self, asker: Asker, name: str) -> None:
        """Nothing is started yet; the thread will have the name."""
        self._asker, self._name = asker, name
        self._thread: LoopThread | None = None

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """As `LoopThread.run`."""
        if self._thread is None:
            self._thread = LoopThread(self._name)
        return self._thread.run(work)

    def close(self) -> None:
        """Closes the model's connections and the cache; closing twice is harmless."""
        if self._thread is not None:
            self._thread.run(self._asker.model.close())
            self._thread.close()
        self._thread = None
        self._asker.cache.close()
