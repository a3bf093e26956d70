"""Run asynchronous code behind an ordinary iterator."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

CLOSING_SECONDS = 10.0  # for calls that cannot be cancelled at once, such as a DNS lookup


async def run_together(coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines concurrently; the first error cancels the others and is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def iterate_async(produce: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> Iterator[T]:
    """Yield the items that a coroutine emits while it runs in a background thread.

    A thread is needed because the caller may already run in an event loop, as in a notebook. Closing
    the iterator early cancels the coroutine.
    """
    emitted: queue.SimpleQueue[tuple[T] | BaseException | None] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(produce(lambda item: emitted.put((item,))))

    def run() -> None:
        try:
            loop.run_until_complete(task)
            emitted.put(None)
        except BaseException as error:  # raised in the caller's thread
            emitted.put(error)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=run, name="iterate-async", daemon=True)
    thread.start()
    try:
        while (item := emitted.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        with contextlib.suppress(RuntimeError):  # the loop has ended and is closed
            loop.call_soon_threadsafe(task.cancel)
        thread.join(CLOSING_SECONDS)
