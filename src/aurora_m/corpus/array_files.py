"""Arrays that grow in a file and are read back memory-mapped, and their rows in parts that fit into memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

AT_ONCE = 1 << 22  # rows in memory, of up to 50 bytes each


class ArrayFile:
    """Rows of one type, `width` values each (1: a flat array), appended to a file that is new."""

    def __init__(self, path: Path, dtype: DTypeLike, width: int = 1) -> None:
        self.path, self.dtype, self.width = path, np.dtype(dtype), width
        path.write_bytes(b"")

    def append(self, rows: np.ndarray) -> None:
        """Adds rows at the end."""
        if len(rows):
            with self.path.open("ab") as file:
                file.write(np.ascontiguousarray(rows, self.dtype).data)

    def open(self, mode: Any = "r") -> np.ndarray:
        """All rows, memory-mapped: to be read, or written to (mode `r+`)."""
        return open_array(self.path, self.dtype, self.width, mode)

    def delete(self) -> None:
        """Takes the file away; arrays that are open stay readable."""
        self.path.unlink(missing_ok=True)


def open_array(path: Path, dtype: DTypeLike, width: int = 1, mode: Any = "r") -> np.ndarray:
    """The rows of a file, memory-mapped."""
    shape = (-1, width) if width > 1 else (-1,)
    if not path.stat().st_size:
        return np.zeros((0, *shape[1:]), dtype)
    return np.memmap(path, dtype, mode).reshape(shape)


def slices_of(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of documents with up to `AT_ONCE` rows, or one with more: the first, and the one after the last.

    The rows of document i are `offsets[i]` to `offsets[i + 1]`.
    """
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + AT_ONCE, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def parts_by_key(
    keys: np.ndarray, offsets: np.ndarray, keep: np.ndarray, folder: Path
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The keys (uint64) of the documents that stay (bool[n]), and their rows (int64, ascending), in parts.

    All equal keys are in one part; parts are as small as hashes spread them, about `AT_ONCE` rows.
    """
    bits = (max(0, len(keys) - 1) // AT_ONCE).bit_length()
    if not bits:
        rows = np.flatnonzero(np.repeat(keep, np.diff(offsets)))
        yield keys[rows], rows
        return
    files = [
        (ArrayFile(folder / f"part-{n}.keys", np.uint64), ArrayFile(folder / f"part-{n}.rows", np.int64))
        for n in range(1 << bits)
    ]
    for first, last in slices_of(offsets):
        lengths = np.diff(offsets[first : last + 1])
        rows = offsets[first] + np.flatnonzero(np.repeat(keep[first:last], lengths))
        some = np.asarray(keys[rows])
        place = (some >> np.uint64(64 - bits)).astype(np.int64)
        order = np.argsort(place, kind="stable")
        bounds = np.searchsorted(place[order], np.arange(len(files) + 1))
        for (of_keys, of_rows), a, b in zip(files, bounds, bounds[1:], strict=False):
            of_keys.append(some[order[a:b]])
            of_rows.append(rows[order[a:b]])
    for of_keys, of_rows in files:
        yield np.array(of_keys.open()), np.array(of_rows.open())
        of_keys.delete()
        of_rows.delete()


def recurring(keys: np.ndarray) -> np.ndarray:
    """The rows (int64) whose key (uint64) another row has too, by key, those of equal keys ascending.

    Sorts the keys' upper bits with the rows in the lower ones: numbers are sorted many times faster than places. Only
    the few rows that are alike in the upper bits are then sorted by their whole keys.
    """
    bits = np.uint64(max(0, len(keys) - 1).bit_length())
    packed = (keys >> bits << bits) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    same = packed[1:] >> bits == packed[:-1] >> bits
    alike = packed[np.append(same, False)[: len(keys)] | np.insert(same, 0, False)[: len(keys)]]
    rows = np.sort((alike & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64))
    some = keys[rows]
    order = np.argsort(some, kind="stable")
    ordered = some[order]
    equal = ordered[1:] == ordered[:-1]
    return rows[order[np.append(equal, False)[: len(rows)] | np.insert(equal, 0, False)[: len(rows)]]]
