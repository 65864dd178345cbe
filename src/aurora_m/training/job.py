"""What torchrun, or a scheduler that sets the same variables, says about this process; needs no torch."""

import os


def world_size() -> int:
    """How many processes were started together; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def local_rank() -> int | None:
    """This process's number on its machine; None without torchrun."""
    value = os.environ.get("LOCAL_RANK")
    return None if value is None else int(value)
