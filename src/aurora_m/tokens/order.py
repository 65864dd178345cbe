"""Orders and draws that are pure functions of names: the same on every machine, NumPy version and rank."""

import hashlib

import numpy as np

_ROUNDS = 6


def shuffled(count: int, start: int, stop: int, key: int) -> np.ndarray:
    """Places `start` to `stop` of the permutation of 0..count-1 that `key` names, int64[stop - start]."""
    return permuted(np.arange(start, stop, dtype=np.uint64), count, key)


def permuted(places: np.ndarray, count: int, key: int) -> np.ndarray:
    """What stands at these places of the permutation of 0..count-1 that `key` names, int64.

    A bijection of k-bit numbers (odd multiplications and right xor-shifts, each of them one) is walked until it falls
    below `count`: cycle-walking, Black and Rogaway 2002. k is the least that holds, so two steps suffice on average.
    """
    bits = max((count - 1).bit_length(), 1)
    mask, shift = np.uint64(2**bits - 1), np.uint64((bits + 1) // 2)
    constants = _mix(np.uint64(key) + np.arange(2 * _ROUNDS, dtype=np.uint64))
    factors, summands = constants[:_ROUNDS] | np.uint64(1), constants[_ROUNDS:]

    def step(value: np.ndarray) -> np.ndarray:
        for factor, summand in zip(factors, summands, strict=True):
            value = (value * factor + summand) & mask
            value ^= value >> shift
        return value

    value = step(places.astype(np.uint64))
    while len(outside := np.flatnonzero(value >= count)):
        value[outside] = step(value[outside])
    return value.astype(np.int64)


def draws(numbers: np.ndarray, count: int, key: int) -> np.ndarray:
    """float64[len(numbers), count], uniform in [0, 1): each row a pure function of its number and the key."""
    counters = numbers.astype(np.uint64)[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)
    return (_mix(np.uint64(key) ^ _mix(counters)) >> np.uint64(11)) * 2.0**-53


def _mix(value: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele et al. 2014) of each uint64; NumPy's own generators may change between its versions."""
    value = (value + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def named_key(*parts: object) -> int:
    """A 62-bit key from what names it. Two bits are left free so that adding small numbers cannot overflow."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 2
