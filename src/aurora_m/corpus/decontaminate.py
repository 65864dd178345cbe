"""Documents that contain evaluation texts, found by the runs of words they share.

A run is too much when it weighs `ngram` words, where two Han or kana characters, or two numbers, weigh as much as one
word of letters: 13 words of English, 26 characters of Japanese, and no row of digits from 0 to F. The run that begins
at a word is therefore the same wherever these words stand, and every shared run of that weight or more is found,
whatever its case and punctuation. Evaluation texts that weigh less than `ngram` but at least `whole` words are looked
for as a whole, by their first `whole` words, then word by word.

Runs are compared by 63 bits of a hash: among a million runs of evaluation texts, the odds that any of a trillion words
of corpus begins a false alarm are about one in nine. The YAML headers of pages are not looked at (see `segments`).
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from ..workspace import kernel
from . import kernels
from .config import DecontaminateConfig
from .evaluation_sets import EvaluationSet, read_evaluation_set
from .hashing import mix
from .normalise import normalise_pass
from .segments import Segments, segment, text_buffers
from .unicode_tables import unicode_tables

_WORD_WEIGHT = 2  # of a word of letters; a Han or kana character, and a number, weighs 1
_BASE = np.uint64(0x9E3779B97F4A7C55)  # odd, so that no bit of the first words is lost
_FILTER_BITS = 16  # per run: of the words that begin no run of an evaluation set, one in 16 goes on to the table


@kernel
def run_keys(word_offsets, word_hash, light, least, powers, keys, lengths):
    """The key of the shortest run of at least weight `least` that begins at each word, and its length in words; where a
    document ends before, both are left 0. Keys are never 0 otherwise.

    A rolling hash: each word enters and leaves once. `powers` are those of the base, at least `least` of them.
    """
    for document in range(len(word_offsets) - 1):
        first, last = word_offsets[document], word_offsets[document + 1]
        value = np.uint64(0)
        weight = 0
        end = first
        for begin in range(first, last):
            while weight < least and end < last:
                value = value * _BASE + word_hash[end]
                weight += 1 if light[end] else _WORD_WEIGHT
                end += 1
            if weight < least:
                break
            keys[begin] = mix(value) | np.uint64(1)
            lengths[begin] = end - begin
            value -= word_hash[begin] * powers[end - begin - 1]
            weight -= 1 if light[begin] else _WORD_WEIGHT


@kernel
def fill_table(distinct, filter_bits, table):
    """Puts keys into an open-addressing table as their number + 1, and marks them in the filter."""
    filter_mask, mask = np.int64(8 * len(filter_bits) - 1), np.int64(len(table) - 1)
    for number in range(len(distinct)):
        key = distinct[number]
        bit = np.int64(key >> np.uint64(1)) & filter_mask
        filter_bits[bit >> 3] |= np.uint8(1 << (bit & 7))
        slot = np.int64(key >> np.uint64(24)) & mask
        while table[slot] != 0:
            slot = (slot + 1) & mask
        table[slot] = number + 1


@kernel
def look_up(keys, distinct, filter_bits, table, positions, numbers):
    """Where keys are in the table, and their numbers there; returns how many, even where there is room for fewer."""
    filter_mask, mask = np.int64(8 * len(filter_bits) - 1), np.int64(len(table) - 1)
    found = 0
    for position in range(len(keys)):
        key = keys[position]
        bit = np.int64(key >> np.uint64(1)) & filter_mask
        if filter_bits[bit >> 3] & (1 << (bit & 7)) == 0 or key == 0:
            continue
        slot = np.int64(key >> np.uint64(24)) & mask
        while table[slot] != 0 and distinct[table[slot] - 1] != key:
            slot = (slot + 1) & mask
        if table[slot] != 0:
            if found < len(positions):
                positions[found], numbers[found] = position, table[slot] - 1
            found += 1
    return found


class _Runs:
    """Runs of one least weight, and what each leads to: run k to `owners[owner_offsets[k] : owner_offsets[k + 1]]`."""

    def __init__(self, weight: int, keys: np.ndarray, owners: np.ndarray) -> None:
        self.weight = weight
        order = np.lexsort((owners, keys))
        keys, owners = keys[order], owners[order]
        new = np.append(True, (keys[1:] != keys[:-1]) | (owners[1:] != owners[:-1]))[: len(keys)]
        self.owners = owners[new]
        self.distinct, starts = np.unique(keys[new], return_index=True)
        self.owner_offsets = np.append(starts, len(self.owners))
        self._filter = np.zeros(max(1 << (_FILTER_BITS * len(self.distinct)).bit_length(), 64) // 8, np.uint8)
        self._table = np.zeros(1 << (4 * len(self.distinct) + 1).bit_length(), np.int32)
        fill_table(self.distinct, self._filter, self._table)

    def owners_of(self, number: int) -> list[int]:
        """All that a run leads to."""
        return self.owners[self.owner_offsets[number] : self.owner_offsets[number + 1]].tolist()

    def find(self, words: "_Words") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Words of the documents at which a run begins: position, its length in words, its number."""
        if not len(self.distinct):
            none = np.zeros(0, np.int64)
            return none, none, none
        keys, lengths = words.keys(self.weight)
        room = 4096
        while True:
            positions, numbers = np.empty(room, np.int64), np.empty(room, np.int64)
            found = look_up(keys, self.distinct, self._filter, self._table, positions, numbers)
            if found <= room:
                return positions[:found], lengths[positions[:found]].astype(np.int64), numbers[:found]
            room = found


@dataclass(frozen=True)
class _Words:
    """Words of a batch, and which of them weigh little."""

    segments: Segments
    light: np.ndarray

    @classmethod
    def of(cls, texts: pa.LargeStringArray, segments: Segments) -> "_Words":
        data, offsets = text_buffers(texts)
        tables = unicode_tables()
        light = np.zeros(len(segments.word_hash), np.uint8)
        kernels.light_words(
            data, offsets, tables.block_of, tables.classes, segments.word_offsets, segments.word_start, light
        )
        return cls(segments, light)

    def keys(self, weight: int) -> tuple[np.ndarray, np.ndarray]:
        """Key (uint64) and length (int32) of the run of that weight at every word, 0 where the text ends before."""
        segments = self.segments
        powers = np.array([pow(int(_BASE), power, 1 << 64) for power in range(weight + 1)], np.uint64)
        keys, lengths = np.zeros(len(self.light), np.uint64), np.zeros(len(self.light), np.int32)
        run_keys(segments.word_offsets, segments.word_hash, self.light, weight, powers, keys, lengths)
        return keys, lengths

    def weights(self) -> np.ndarray:
        """Weight of every text, int64[n]."""
        each = np.where(self.light, 1, _WORD_WEIGHT)
        return np.diff(np.append(0, np.cumsum(each))[self.segments.word_offsets])


@dataclass
class SetOverlap:
    """What one evaluation set and one source have in common."""

    documents: int = 0
    items: set[int] = field(default_factory=set)
    longest_words: int = 0

    def add(self, other: "SetOverlap") -> None:
        self.documents += other.documents
        self.items |= other.items
        self.longest_words = max(self.longest_words, other.longest_words)


@dataclass(frozen=True)
class Overlap:
    """A contaminated document: its row, and for each set it shares a run with the items and the longest run."""

    row: int
    sets: dict[str, SetOverlap]


@dataclass
class Overlaps:
    """What evaluation sets and sources of a domain have in common; a document in two sets counts for both."""

    by_set_and_source: dict[tuple[str, str], SetOverlap] = field(default_factory=dict)

    def count(self, overlap: Overlap, source: str) -> None:
        """Adds one contaminated document."""
        for set_name, found in overlap.sets.items():
            self.by_set_and_source.setdefault((set_name, source), SetOverlap()).add(found)

    def add(self, other: "Overlaps") -> None:
        """Adds the counts of another batch."""
        for key, found in other.by_set_and_source.items():
            self.by_set_and_source.setdefault(key, SetOverlap()).add(found)


_Hit = tuple[int, int, dict[int, list[int]]]  # first word, words, items by set


class EvaluationIndex:
    """The runs of all evaluation sets, to find documents that contain them. Read by many threads at once."""

    def __init__(self, sets: Sequence[EvaluationSet], config: DecontaminateConfig) -> None:
        self.sets = sets
        # The first item of every set. One without items begins where the next does, which is the one meant.
        self._starts = [0, *accumulate(one.size for one in sets)]
        texts = pa.array([text for one in sets for text in one.texts], pa.large_string())
        items = [start + np.array(one.items, np.int64) for start, one in zip(self._starts, sets, strict=False)]
        item_of = np.concatenate([*items, np.zeros(0, np.int64)])
        # Documents are compared after they were normalised.
        texts = normalise_pass(texts)[0]
        words = _Words.of(texts, segment(texts))
        weights = words.weights()
        long, short = _WORD_WEIGHT * config.ngram, _WORD_WEIGHT * min(config.whole, config.ngram)
        whole = np.flatnonzero((weights >= short) & (weights < long))
        ends = np.cumsum([0, *(len(one.texts) for one in sets)])
        self._used = np.diff(np.append(0, np.cumsum(weights >= short))[ends])

        word_offsets = words.segments.word_offsets
        of_word = np.repeat(np.arange(len(texts)), np.diff(word_offsets))
        keys = words.keys(long)[0]
        self._long = _Runs(long, keys[keys != 0], item_of[of_word[keys != 0]])
        # Texts as a whole are known by their first run; what follows it is compared word by word.
        keys = words.keys(short)[0]
        self._short = _Runs(short, keys[word_offsets[whole]], np.arange(len(whole)))
        self._whole_words = [words.segments.word_hash[word_offsets[k] : word_offsets[k + 1]] for k in whole]
        self._whole_items = item_of[whole]

    def find(self, texts: pa.LargeStringArray, segments: Segments) -> list[Overlap]:
        """The contaminated ones among texts, in order."""
        words = _Words.of(texts, segments)
        hits: dict[int, list[_Hit]] = {}
        known: dict[int, dict[int, list[int]]] = {}
        for row, position, length, number in _rows(segments, *self._long.find(words)):
            if number not in known:
                known[number] = self._by_set(self._long.owners_of(number))
            hits.setdefault(row, []).append((position, length, known[number]))
        for row, position, _, number in _rows(segments, *self._short.find(words)):
            following = segments.word_hash[position : segments.word_offsets[row + 1]]
            for text in self._short.owners_of(number):
                wanted = self._whole_words[text]
                if np.array_equal(following[: len(wanted)], wanted):
                    items = self._by_set([int(self._whole_items[text])])
                    hits.setdefault(row, []).append((position, len(wanted), items))
        return [Overlap(row, self._gathered(hits[row])) for row in sorted(hits)]

    def _by_set(self, items: list[int]) -> dict[int, list[int]]:
        """Items, numbered through all sets, by the set and their number there."""
        found: dict[int, list[int]] = {}
        for item in items:
            number = bisect_right(self._starts, item) - 1
            found.setdefault(number, []).append(item - self._starts[number])
        return found

    def _gathered(self, hits: list[_Hit]) -> dict[str, SetOverlap]:
        """The hits of one document by set, in the recipe's order; runs that follow word on word are one."""
        overlaps: dict[int, SetOverlap] = {}
        going_on: dict[
            int, tuple[int, int]
        ] = {}  # set -> where the run that is going on began, where it was last found
        for position, length, by_set in hits:
            for number, items in by_set.items():
                overlap = overlaps.setdefault(number, SetOverlap(1))
                overlap.items.update(items)
                first, newest = going_on.get(number, (position, position))
                first = first if position - newest in (0, 1) else position
                going_on[number] = first, position
                overlap.longest_words = max(overlap.longest_words, position + length - first)
        return {self.sets[number].name: overlaps[number] for number in sorted(overlaps)}

    def describe(self, overlaps: dict[str, Overlaps]) -> dict[str, Any]:
        """The part `decontamination` of curation.json, from the overlaps of every domain."""
        return {
            "sets": [self._describe_set(number, overlaps) for number in range(len(self.sets))],
            "overlaps": [
                {
                    "set": set_name,
                    "domain": domain,
                    "source": source,
                    "documents": one.documents,
                    "items": len(one.items),
                    "longest_words": one.longest_words,
                }
                for domain, found in overlaps.items()
                for (set_name, source), one in sorted(found.by_set_and_source.items())
            ],
        }

    def _describe_set(self, number: int, overlaps: dict[str, Overlaps]) -> dict[str, Any]:
        one, whole = self.sets[number], SetOverlap()
        for found in overlaps.values():
            for (set_name, _), overlap in found.by_set_and_source.items():
                if set_name == one.name:
                    whole.add(overlap)
        return {
            "name": one.name,
            "items": one.size,
            "texts": len(one.texts),
            "texts_too_short": len(one.texts) - int(self._used[number]),
            "items_found": len(whole.items),
            "documents": whole.documents,
            "longest_words": whole.longest_words,
        }


def load_evaluation_index(config: DecontaminateConfig) -> EvaluationIndex | None:
    """Reads the evaluation sets of a recipe; None where it names none.

    Raises:
        DataError: one is missing, damaged, or without the fields named.
    """
    if not config.against:
        return None
    return EvaluationIndex([read_evaluation_set(one) for one in config.against], config)


def _rows(
    segments: Segments, positions: np.ndarray, lengths: np.ndarray, numbers: np.ndarray
) -> Iterator[tuple[int, int, int, int]]:
    """Runs found in a batch: row of the document, first word, words, number of the run."""
    rows = np.searchsorted(segments.word_offsets, positions, side="right") - 1
    return zip(rows.tolist(), positions.tolist(), lengths.tolist(), numbers.tolist(), strict=True)
