"""How often words come in a corpus, and in how many documents: the vocabulary of a classifier, lists of stop words.

Words are known by 64-bit keys; how the first of each was written is kept. Memory grows with the different words only.
"""

import numpy as np

from ..workspace import kernel
from .hashing import mix

_FIRST_CAPACITY = 1 << 16


@kernel
def _slot_of(slots, ids, keys, key):
    """Where a key is in the table of ids (open addressing, a power of two), or the empty slot where it belongs."""
    mask = np.uint64(len(slots) - 1)
    slot = mix(key) & mask
    while slots[slot] and keys[ids[slot]] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@kernel
def refill(slots, ids, keys, used):
    """Puts the keys used so far into an empty table."""
    for number in range(used):
        slot = _slot_of(slots, ids, keys, keys[number])
        slots[slot], ids[slot] = True, number


@kernel
def count_words(
    word_offsets, word_keys, first_text, begin, used, slots, ids, keys, occurrences, documents, last, new_words
):
    """Counts the words of a batch from number `begin` on: occurrences, and documents that have the word.

    `last` (int64) has the number of the document that had a word last; `first_text` is that of the batch's first. The
    batch's numbers of words that are new go to `new_words`, in order. Returns how many words are known then, and the
    number of the word for which there was no room: the number of all words where there was.
    """
    text = 0
    for word in range(begin, len(word_keys)):
        while word_offsets[text + 1] <= word:
            text += 1
        slot = _slot_of(slots, ids, keys, word_keys[word])
        if not slots[slot]:
            if used == len(keys):
                return used, word
            slots[slot], ids[slot] = True, used
            keys[used], last[used] = word_keys[word], -1
            new_words[used] = word
            used += 1
        number = ids[slot]
        occurrences[number] += 1
        documents[number] += last[number] != first_text + text
        last[number] = first_text + text
    return used, len(word_keys)


@kernel
def copy_spans(data, begins, ends, out, out_offsets):
    """Copies spans of bytes one after another."""
    filled = np.int64(0)
    for span in range(len(begins)):
        out_offsets[span] = filled
        for at in range(begins[span], ends[span]):
            out[filled] = data[at]
            filled += 1
    out_offsets[len(begins)] = filled


class WordCounts:
    """Counts of all words seen, numbered in the order in which they first came."""

    def __init__(self) -> None:
        self.texts = self._used = 0
        self._table(_FIRST_CAPACITY)
        self._keys, self._new = np.zeros(_FIRST_CAPACITY, np.uint64), np.zeros(_FIRST_CAPACITY, np.int64)
        self._counts = np.zeros((3, _FIRST_CAPACITY), np.int64)
        self._spellings: list[tuple[np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return self._used

    def add(
        self, data: np.ndarray, word_offsets: np.ndarray, keys: np.ndarray, begins: np.ndarray, ends: np.ndarray
    ) -> None:
        """Counts a batch of texts.

        Args:
            data: bytes (uint8) that words are spelled in.
            word_offsets: int64 (texts + 1); the words of text i are `word_offsets[i]` to `word_offsets[i + 1]`.
            keys: uint64, one per word; equal for equal words.
            begins, ends: int64, where each word lies in `data`.
        """
        known, at = self._used, 0
        while True:
            occurrences, documents, last = self._counts
            self._used, at = count_words(
                word_offsets, keys, self.texts, at, self._used, self._slots, self._ids, self._keys,
                occurrences, documents, last, self._new,
            )  # fmt: skip
            if at == len(keys):
                break
            self._grow()
        new = self._new[known : self._used]
        spelled = np.empty(int((ends[new] - begins[new]).sum()), np.uint8)
        offsets = np.empty(len(new) + 1, np.int64)
        copy_spans(data, begins[new], ends[new], spelled, offsets)
        self._spellings.append((spelled, offsets))
        self.texts += len(word_offsets) - 1

    @property
    def keys(self) -> np.ndarray:
        """uint64[words]"""
        return self._keys[: self._used]

    @property
    def occurrences(self) -> np.ndarray:
        """int64[words]"""
        return self._counts[0, : self._used]

    @property
    def documents(self) -> np.ndarray:
        """int64[words]: texts that have the word."""
        return self._counts[1, : self._used]

    def spellings(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The bytes of all words (uint8), and where each begins and ends there (int64)."""
        parts = [spelled for spelled, _ in self._spellings]
        starts = np.cumsum([0, *map(len, parts)])
        pairs = list(zip(self._spellings, starts, strict=False))
        none = [np.zeros(0, np.int64)]
        begins = np.concatenate(none + [offsets[:-1] + start for (_, offsets), start in pairs])
        ends = np.concatenate(none + [offsets[1:] + start for (_, offsets), start in pairs])
        return np.concatenate([np.zeros(0, np.uint8), *parts]), begins, ends

    def spelling(self, numbers: np.ndarray) -> list[str]:
        """How the words of these numbers were first written."""
        data, begins, ends = self.spellings()
        return [data[begins[number] : ends[number]].tobytes().decode("utf-8", "replace") for number in numbers.tolist()]

    def _table(self, capacity: int) -> None:
        self._slots, self._ids = np.zeros(4 * capacity, np.bool_), np.zeros(4 * capacity, np.int64)

    def _grow(self) -> None:
        capacity = 2 * len(self._keys)
        self._table(capacity)
        self._keys, self._new = np.resize(self._keys, capacity), np.resize(self._new, capacity)
        self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)], axis=1)
        refill(self._slots, self._ids, self._keys, self._used)
