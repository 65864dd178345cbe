"""Ctrl-C, SIGTERM and SIGUSR1 (a scheduler's warning) ask the loop to stop after its step; a second one stops at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from aurora_m.workspace import AuroraError

from .job import is_main_process


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StoppedByUser(AuroraError):  # noqa: N818 (it is no error)
    """Training was asked to stop and has saved its place. Exit code 0: nothing went wrong."""

    exit_code = 0


class StopRequest:
    """Whether a stop was asked for."""

    def __init__(self) -> None:
        self.asked = False

    def handle(self, signal_number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        name = signal.Signals(signal_number).name
        if is_main_process():
            print(f"\n{name}: finishing this step and writing a checkpoint; once more stops at once", flush=True)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """SIGINT, SIGTERM and SIGUSR1 become a request inside the block. Off the main thread (notebooks, tests) they are left be."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request.handle) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
