"""Checkpoints written in a thread: the loop waits for a copy of the tensors in host memory, not for the disk."""

import copy
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from aurora_m.workspace import AuroraError

from .checkpoint import save_checkpoint
from .gradients import local_tensor
from .ranks import SINGLE, Ranks

_PATIENCE_SECONDS = 5.0  # with a thread whose training ended by a second Ctrl-C or a lost rank


class CheckpointWriter:
    """Writes one checkpoint at a time, a phase long; a checkpoint is there when its folder has its name.

    All ranks call every method together. Their threads talk in a process group of their own, and an error of any of
    them is raised by all at the same call. The copies (as large as weights and moments of this rank) are kept for the
    next save.
    """

    def __init__(self, ranks: Ranks = SINGLE, asynchronous: bool = False) -> None:
        self.seconds = 0.0
        """How long `save` held its callers up, all together."""
        self._ranks = ranks
        self._beside = ranks.apart() if asynchronous else None
        self._copies: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self,
        folder: Path,
        tensors: dict[str, Tensor],
        record: dict[str, Any],
        then: Callable[[], None],
        *,
        wait: bool,
    ) -> None:
        """Saves `tensors` and `record` as they are now, after the checkpoint before; `then` runs when it is there.

        With `wait`, or where nothing is asynchronous, it is there on return, and nothing was copied.

        Raises:
            AuroraError: this one (only with `wait`) or the one before could not be written.
        """
        started = time.perf_counter()
        self.wait()
        if wait or self._beside is None:
            save_checkpoint(folder, tensors, record, self._ranks)
            then()
        else:
            self._copies = copied(tensors, self._copies)
            arguments = (folder, tensors, copy.deepcopy(record), self._beside, self._copies, then)
            self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint", daemon=True)
            self._thread.start()
        self.seconds += time.perf_counter() - started

    def check(self) -> None:
        """Hears of the checkpoint on its way, without waiting for it.

        Raises:
            AuroraError: it could not be written.
        """
        # Together: a rank that raised a step before the others would be lost to them.
        if self._thread is not None and not self._ranks.any(self._thread.is_alive()):
            self.wait()

    def wait(self) -> None:
        """Waits until no checkpoint is on its way.

        Raises:
            AuroraError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(
        self,
        folder: Path,
        tensors: dict[str, Tensor],
        record: dict[str, Any],
        ranks: Ranks,
        copies: dict[str, Tensor],
        then: Callable[[], None],
    ) -> None:
        try:
            save_checkpoint(folder, tensors, record, ranks, copies)
            then()
        except BaseException as error:  # handed to the loop, which raises it
            self._error = error

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for the checkpoint on its way; where training was broken off, only for a moment.

        Raises:
            AuroraError: it could not be written, and nothing else went wrong.
        """
        try:
            if error is None:
                self.wait()
            elif isinstance(error, AuroraError):
                with suppress(AuroraError):
                    self.wait()
            elif self._thread is not None:
                self._thread.join(_PATIENCE_SECONDS)
        finally:
            self._copies = {}
            if self._beside is not None and (self._thread is None or not self._thread.is_alive()):
                self._beside.leave()
            self._beside = None


def copied(tensors: dict[str, Tensor], into: dict[str, Tensor]) -> dict[str, Tensor]:
    """This rank's part of each tensor as it is now, on the CPU; in the memory of `into` where that has its name."""
    copies = {}
    for name, tensor in tensors.items():
        own = local_tensor(tensor.detach())
        # Pinned, for the full speed of the bus; the copies queue up behind the step that is still computed.
        copies[name] = into[name] if name in into else torch.empty_like(own, device="cpu", pin_memory=own.is_cuda)
        copies[name].copy_(own, non_blocking=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return copies
