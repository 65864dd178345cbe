"""Where the work is done: in threads over batches on one machine, or in the workers of a Ray cluster over partitions.

The compiled kernels, Arrow and polars all let go of the GIL, so on one machine threads are enough.
"""

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

from ..workspace import available_cores

# Measured by benchmarks/curation.py: what a process takes with one thread and with two.
_MEMORY_AT_REST, _MEMORY_OF_A_THREAD = 150_000_000, 230_000_000

Item = TypeVar("Item")
Result = TypeVar("Result")


class OrderedMap(Protocol):
    """Applies a function to items, several at a time, and yields the results in the items' order."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]: ...


Tell = Callable[[int, int], None]
"""Takes the bytes read and the documents left since the last time."""


class Engine(Protocol):
    """Does the work of partitions. The results do not depend on which engine it is."""

    in_order: OrderedMap
    """Threads of this process, for work that is not spread over machines."""
    spreads: bool
    """Whether it works at many items at a time."""

    def for_each(self, function: Callable[[Item, OrderedMap, Tell], None], items: Sequence[Item], tell: Tell) -> None:
        """Calls `function(item, in_order, tell)` for every item, in any order and place; more may be given again.

        Raises:
            AuroraError: what the function raises.
        """
        ...


@contextmanager
def open_engine(kind: str, threads: int | None, ray_address: str | None) -> Iterator[Engine]:
    """The engine of that kind (`threads`, `ray`), ready to work.

    What lives already is left out of garbage collections while it is open: walking through all that was imported again
    and again holds all threads up.

    Raises:
        RecipeError: Ray is not installed, or there is no cluster at the address.
    """
    gc.freeze()
    try:
        with ordered_threads(threads) as in_order:
            if kind == "threads":
                yield ThreadEngine(in_order)
                return
            from .ray_engine import open_ray

            with open_ray(in_order, threads, ray_address) as engine:
                yield engine
    finally:
        gc.unfreeze()


class ThreadEngine:
    """One partition after the other, each in all threads."""

    spreads = False

    def __init__(self, in_order: OrderedMap) -> None:
        self.in_order = in_order

    def for_each(self, function: Callable[[Item, OrderedMap, Tell], None], items: Sequence[Item], tell: Tell) -> None:
        """See `Engine`."""
        for item in items:
            function(item, self.in_order, tell)


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


def affordable_threads(memory: int) -> int:
    """Threads that there are cores for and that so many bytes are enough for, at least one."""
    return max(1, min(available_cores(), (memory - _MEMORY_AT_REST) // _MEMORY_OF_A_THREAD))


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
