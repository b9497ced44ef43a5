"""An event loop for callers that have none, or have one running already."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["LoopThread"]

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
