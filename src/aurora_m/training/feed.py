"""The next batches, made in a thread while the step before is computed."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from aurora_m.tokens import Batch

from .state import BatchSource

_AHEAD = 2


class Feed:
    """Batches of a source, of so many sequences each; the source is left alone until the feed is closed.

    `state` is the source's state after the last batch handed out, which is what a checkpoint needs: the source itself
    is ahead of it. `waited_seconds` is how long `next` had to wait for its batches, all together.
    """

    def __init__(self, source: BatchSource, sequences: Sequence[int]) -> None:
        self.state: dict[str, Any] = source.state_dict()
        self.waited_seconds = 0.0
        self._source, self._sequences = source, sequences
        self._given = 0

    def next(self) -> Batch:
        """The next batch.

        Raises:
            AuroraError: what the source raises.
        """
        started = time.perf_counter()
        made = self._ready.get()
        self.waited_seconds += time.perf_counter() - started
        if isinstance(made, BaseException):
            raise made
        batch, self.state = made
        self._given += 1
        return batch

    def redirect(self, change: Callable[[], None]) -> None:
        """Has `change` done to the source between the last batch handed out and the next; what was made ahead is made
        anew."""
        self._end()
        change()
        self.state = self._source.state_dict()
        self._begin()

    def _fill(self) -> None:
        try:
            for sequences in self._sequences[self._given :]:
                if self._stop.is_set():
                    return
                batch = self._source.next_batch(sequences)
                self._put((batch, self._source.state_dict()))
        except BaseException as error:  # handed to the loop, which raises it where the batch is missed
            self._put(error)

    def _put(self, made: tuple[Batch, dict[str, Any]] | BaseException) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(made, timeout=0.2)
                return
            except queue.Full:
                continue

    def _begin(self) -> None:
        self._ready: queue.Queue[tuple[Batch, dict[str, Any]] | BaseException] = queue.Queue(_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="feed", daemon=True)
        self._thread.start()

    def _end(self) -> None:
        """Ends the thread and puts the source back to the last batch handed out."""
        self._stop.set()
        self._thread.join()
        self._source.load_state_dict(self.state)

    def __enter__(self) -> "Feed":
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
