"""Threads over batches. The compiled kernels, Arrow and polars all let go of the GIL, so threads are enough."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class OrderedMap(Protocol):
    """Applies a function to items, several at a time, and yields the results in the items' order."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]: ...


@contextmanager
def ordered_threads(threads: int | None) -> Iterator[OrderedMap]:
    """An `OrderedMap` over that many threads (None: one per core this process may use).

    Only a few items more than threads are taken ahead of the results, so memory does not grow with the number of
    items. Items are drawn and results handed out in the calling thread, in order: what it does with them does not
    depend on the number of threads. One map may feed another.
    """
    threads = threads or available_cores()
    if threads == 1:
        yield lambda function, items: map(function, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="corpus") as pool:
        yield lambda function, items: _map_in_order(pool, threads + 1, function, items)


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _map_in_order(
    pool: ThreadPoolExecutor, ahead: int, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # Reached early by an error or by a consumer that has enough.
        for future in pending:
            future.cancel()
