"""How much of the machine is this process's."""

import os


def available_cores() -> int:
    """Cores this process may run on, which in a container or a batch job are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
