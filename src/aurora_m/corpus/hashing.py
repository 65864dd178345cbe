"""The hash functions that compiled loops share.

Numba's cache knows only the age of the file a kernel is in: after a change here, or of the class bits in
`unicode_tables.py`, touch `kernels.py`, `sequences.py`, `repetition.py`, `passages.py` and `spans.py`, or they go on
with what they were compiled with.
"""

import numpy as np

from ..workspace import kernel

# FNV-1a's offset and prime; the finaliser's constants are those of splitmix64 (Steele et al. 2014).
HASH_START = np.uint64(0xCBF29CE484222325)
HASH_PRIME = np.uint64(0x100000001B3)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
FOLD = np.uint64(0x9E3779B97F4A7C15)


@kernel
def mix(value):
    """Spreads a 64-bit value: every bit of the input moves half of the bits that come out."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


@kernel
def mix_step(value, chunk):
    """A hash with 64 more bits: quick, and for `mix` to finish. The shift lets high bits reach the low ones."""
    value = (value ^ chunk) * FOLD
    return value ^ (value >> np.uint64(32))


@kernel
def fold(sequence, item):
    """The hash of a sequence with one more item; the empty sequence is 0."""
    return mix(sequence * FOLD + item + np.uint64(1))
