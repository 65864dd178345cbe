"""Paragraphs or lines that occur in the corpus before, found out of core.

The keys of all passages lie in a file, in the order of precedence of their documents. When it is settled which
documents stay, keys are sorted in parts that fit into memory, and every passage whose key stands earlier, in a document
that stays, is a repeat. What a repeat says is never lost: of equal passages the first is no repeat.
"""

from pathlib import Path

import numpy as np

from .array_files import ArrayFile, parts_by_key, recurring, slices_of
from .passages import Passages

RANK = 4  # column beside those of a passage: its place among the most frequent repeats, from 1; 0 is none
_TOP = 200  # repeats that have a place


class PassageIndex:
    """The passages of all documents of a corpus. In memory a document takes 4 bytes; on disk a passage takes 24."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys = ArrayFile(folder / "passage-keys.bin", np.uint64)
        self._spans = ArrayFile(folder / "passage-spans.bin", np.uint32, 4)
        self._counts: list[np.ndarray] = []

    def add(self, passages: Passages | None, documents: int) -> None:
        """Adds the next documents, in the order of precedence; None: they have no passages to compare."""
        if passages is None:
            self._counts.append(np.zeros(documents, np.int32))
            return
        self._keys.append(passages.keys)
        self._spans.append(passages.spans)
        self._counts.append(np.diff(passages.offsets).astype(np.int32))

    def resolve(self, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All repeats: uint32 (k, 5), as `Passages.spans` and `RANK`; those of document i are `offsets[i]` to
        `offsets[i + 1]` (int64), the second value. Takes time proportional to n log n.

        Args:
            keep: bool[n], which documents stay; others count for nothing.
        """
        offsets = np.concatenate([[0], *self._counts]).cumsum().astype(np.int64)
        keys = self._keys.open()
        repeated = ArrayFile(self._folder / "passage-repeated.bin", np.bool_)
        for first, last in slices_of(offsets):
            repeated.append(np.zeros(offsets[last] - offsets[first], np.bool_))
        marks = repeated.open("r+")
        frequent = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        for part, positions in parts_by_key(keys, offsets, keep, self._folder):
            order = recurring(part)
            ordered = part[order]
            later = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
            marks[positions[order[later]]] = True
            frequent = _most_frequent(*frequent, *np.unique(ordered[later], return_counts=True))

        removed = ArrayFile(self._folder / "passage-removed.bin", np.uint32, 5)
        counts = np.zeros(len(keep), np.int64)
        spans, by_key = self._spans.open(), np.argsort(frequent[0])
        for first, last in slices_of(offsets):
            chosen = offsets[first] + np.flatnonzero(marks[offsets[first] : offsets[last]])
            documents = np.searchsorted(offsets, chosen, side="right") - 1
            removed.append(np.column_stack([spans[chosen], _ranks(keys[chosen], frequent[0], by_key)]))
            np.add.at(counts, documents, 1)
        return removed.open(), np.concatenate([[0], counts]).cumsum().astype(np.int64)


def _most_frequent(*keys_and_counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of keys with counts, and more keys with counts, the most frequent; of equal ones the smaller keys."""
    keys = np.concatenate(keys_and_counts[::2])
    counts = np.concatenate(keys_and_counts[1::2])
    order = np.lexsort((keys, -counts))[:_TOP]
    return keys[order], counts[order]


def _ranks(keys: np.ndarray, frequent: np.ndarray, by_key: np.ndarray) -> np.ndarray:
    """The place of every key among the frequent ones, from 1; 0 where it is none. `by_key` sorts those."""
    if not len(frequent):
        return np.zeros(len(keys), np.uint32)
    place = by_key[np.minimum(np.searchsorted(frequent, keys, sorter=by_key), len(by_key) - 1)]
    return np.where(frequent[place] == keys, place + 1, 0).astype(np.uint32)
