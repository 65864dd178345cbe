"""Ctrl-C, and the signals schedulers send, ask the loop to stop after its step; a second Ctrl-C stops at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from aurora_m.workspace import AuroraError

from .job import is_main_process

# A scheduler's warning, and its notice that machines are taken away.
SCHEDULER_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
STOP_SIGNALS = (signal.SIGINT, *SCHEDULER_SIGNALS)
# sysexits.h: "temporary failure, the user is invited to retry". A job script puts the run back into the queue for it.
EXIT_STOPPED_BY_SCHEDULER = 75


class StoppedByUser(AuroraError):  # noqa: N818 (it is no error)
    """Training was asked to stop and has saved its place. Exit code 0, as nothing went wrong; 75 for a scheduler."""

    def __init__(self, message: str, exit_code: int = 0) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Whether a stop was asked for, and of what exit code."""

    def __init__(self) -> None:
        self.asked = False
        self.exit_code = 0

    def handle(self, signal_number: int, frame: FrameType | None) -> None:
        if self.asked:
            # Schedulers may send several, to make sure; what they kill with in the end is SIGKILL.
            if signal_number in SCHEDULER_SIGNALS:
                return
            raise KeyboardInterrupt
        self.asked = True
        again = "; once more stops at once"
        if signal_number in SCHEDULER_SIGNALS:
            self.exit_code, again = EXIT_STOPPED_BY_SCHEDULER, ""
        if is_main_process():
            print(
                f"\n{signal.Signals(signal_number).name}: finishing this step and writing a checkpoint{again}",
                flush=True,
            )


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Stop signals become a request inside the block. Off the main thread (notebooks, tests) they are left be."""
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
