"""How all loops over arrays are compiled."""

from typing import Any

from numba import njit

# Without the interpreter lock, and without numba's reference counts, which cost more, at every call and assignment of
# an array, than the work itself. Kernels get all their arrays from outside and make none.
_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "_nrt": False}
kernel = njit(**_OPTIONS)
"""The decorator of a compiled loop. It lets threads run side by side and allocates nothing."""


def relaxed_kernel(*freedoms: str) -> Any:
    """`kernel` with freedoms of LLVM's over floating-point numbers: `contract`, `reassoc`, `nsz`, `nnan`."""
    return njit(**_OPTIONS, fastmath=set(freedoms))
