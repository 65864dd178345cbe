"""Work in children that kill themselves -9 at a touch of the disk, for scripts that tests start in a process of its own."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

TOUCHES = [(Path, "rename"), (Path, "replace"), (Path, "mkdir"), (Path, "unlink"), (shutil, "rmtree")]


def finished(work: Callable[[], object], kill_at: int, touches=TOUCHES) -> bool:
    """Does `work` in a child that dies before its `kill_at`-th touch of the disk (0: never); whether it got through."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(function):
            def call(*arguments, **settings):
                nonlocal count
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **settings)

            return call

        for owner, name in touches:
            setattr(owner, name, counted(getattr(owner, name)))
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
