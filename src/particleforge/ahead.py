"""Make what comes next in a thread, while what is there is dealt with.

An iterator -> the same items. What the iterator raises is raised in its turn, and ``progress`` is
hidden in the thread where it is hidden outside.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

_Item = TypeVar("_Item")


def made_ahead(items: Iterator[_Item], n: int) -> Generator[_Item, None, None]:
    """Yield the items while a thread makes the next ``n``; 0: without a thread."""
    if not n:
        yield from items
        return
    end, context = object(), copy_context()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:

        def another() -> Future[Any]:
            return thread.submit(lambda: context.run(next, items, end))

        waiting = deque(another() for _ in range(n))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(another())
            yield item
            del item
