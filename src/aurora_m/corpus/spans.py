"""Runs of words that occur in the corpus before, at any place of a document, found exactly and out of core.

A window is so many words in a row (50 in Lee et al. 2022, who count tokens). A window that equals an earlier one, in
the same or in an earlier document that stays, is a repeat, and so is every word in it. To find them without a key for
every window, each window is stood for by the least key of the runs of half as many words in it (winnowing: Schleimer et
al. 2003): equal windows have equal least keys. Only windows whose least key recurs get a key of their own; those that
share one with an earlier window are compared with it word by word.

Words are compared by 32 bits of the hash of their lower case: two different windows pass for equal only if all their
words collide. Fenced code takes no part: no window has a word of it, or words from both sides of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..workspace import kernel
from .array_files import ArrayFile, parts_by_key, recurring, slices_of
from .fenced_code import find_stretches
from .hashing import mix
from .passages import is_gap
from .segments import Segments, segment, text_buffers

_BASE = np.uint64(0x9E3779B97F4A7C55)  # odd, so that no bit of the first words is lost
_NO_WINDOWS = 1 << 31  # in `WordRuns.starts`: from here to the next start there are none; no text has so many words


@dataclass(frozen=True)
class WordRuns:
    """Words of n texts, and what stands for their windows.

    `words` is uint32, those of text i being `word_offsets[i]` to `word_offsets[i + 1]` of it. `keys` (uint64) and
    `starts` (uint32) are those of text i from `key_offsets[i]` on: windows from `starts[k]` up to the next start have
    the least key `keys[k]`; where the bit `_NO_WINDOWS` is set, fenced code is in the way of them.
    """

    words: np.ndarray
    word_offsets: np.ndarray
    keys: np.ndarray
    starts: np.ndarray
    key_offsets: np.ndarray


def word_runs(texts: pa.LargeStringArray, segments: Segments, window: int) -> WordRuns:
    """Of texts, of which the segments are."""
    stretches, stretch_offsets = find_stretches(texts, segments)
    word_offsets = segments.word_offsets
    words = (segments.word_hash >> np.uint64(32)).astype(np.uint32)
    keys, starts = np.empty(len(words), np.uint64), np.empty(len(words), np.uint32)
    scratch = np.empty(int(np.diff(word_offsets).max(initial=0)), np.uint64)
    key_offsets = np.zeros(len(word_offsets), np.int64)
    found = winnow(
        words, word_offsets, stretches, stretch_offsets, window, window // 2, scratch, keys, starts, key_offsets
    )
    return WordRuns(words, word_offsets, keys[:found].copy(), starts[:found].copy(), key_offsets)


@kernel
def _power(exponent):
    value = np.uint64(1)
    for _ in range(exponent):
        value *= _BASE
    return value


@kernel
def winnow(words, word_offsets, stretches, stretch_offsets, window, run, scratch, keys, starts, key_offsets):
    """The least key of every window in a stretch of texts, the leftmost of equals."""
    found = np.int64(0)
    for text in range(len(word_offsets) - 1):
        begin, end = word_offsets[text], word_offsets[text + 1]
        for stretch in range(stretch_offsets[text], stretch_offsets[text + 1]):
            opens, closes = stretches[stretch, 0], stretches[stretch, 1]
            if closes - opens < window:
                continue
            found = _winnow_stretch(words, begin, opens, closes, window, run, scratch, keys, starts, found)
            if begin + closes < end:
                keys[found] = ~keys[found - 1]  # any will do that is as rare
                starts[found] = np.uint32((closes - window + 1) | _NO_WINDOWS)
                found += 1
        key_offsets[text + 1] = found
    return found


@kernel
def _winnow_stretch(words, begin, opens, closes, window, run, scratch, keys, starts, found):
    """Adds the least keys of the windows of a stretch, the words from `begin + opens` on; returns where the next go."""
    oldest = _power(run - 1)
    value = np.uint64(0)
    for word in range(opens, closes):
        if word >= opens + run:
            value -= np.uint64(words[begin + word - run]) * oldest
        value = value * _BASE + np.uint64(words[begin + word])
        if word >= opens + run - 1:
            scratch[word - run + 1] = mix(value)
    least = np.int64(-1)
    for start in range(opens, closes - window + 1):
        end = start + window - run  # the last run of the window
        was = least
        if least < start:
            least = start
            for place in range(start + 1, end + 1):
                if scratch[place] < scratch[least]:
                    least = place
        elif scratch[end] < scratch[least]:
            least = end
        if least != was:
            keys[found], starts[found] = scratch[least], np.uint32(start)
            found += 1
    return found


@kernel
def window_keys(words, begin, end, keys_begin, keys_end, starts, recurs, window, keys, places):
    """Keys and places of those windows of a text (words `begin` to `end`) whose least key recurs; how many."""
    oldest = _power(window - 1)
    found = np.int64(0)
    rolled = np.int64(-2)  # the window that `value` is of
    value = np.uint64(0)
    for number in range(keys_begin, keys_end):
        first = np.int64(starts[number])
        if not recurs[number] or first >= _NO_WINDOWS:
            continue
        last = np.int64(starts[number + 1]) & (_NO_WINDOWS - 1) if number + 1 < keys_end else end - begin - window + 1
        for start in range(first, last):
            at = begin + start
            if rolled == start - 1:
                value -= np.uint64(words[at - 1]) * oldest
                value = value * _BASE + np.uint64(words[at + window - 1])
            else:
                value = np.uint64(0)
                for word in range(at, at + window):
                    value = value * _BASE + np.uint64(words[word])
            rolled = start
            keys[found], places[found] = mix(value), at
            found += 1
    return found


@kernel
def join_windows(words, window, places, earlier, begins, ends):
    """Runs of words in windows that equal the window at `earlier` (int64; -1: there is none), compared by word.

    `places` ascend. Runs that overlap are one. Returns how many there are.
    """
    found = np.int64(0)
    last_place = last_earlier = np.int64(-2)
    for number in range(len(places)):
        place, other = places[number], earlier[number]
        if other < 0:
            continue
        at = np.int64(0)
        if place == last_place + 1 and other == last_earlier + 1:
            at = window - 1  # the words before have been compared
        while at < window and words[place + at] == words[other + at]:
            at += 1
        if at < window:
            continue
        last_place, last_earlier = place, other
        if found and place < ends[found - 1]:
            ends[found - 1] = place + window
        else:
            begins[found], ends[found] = place, place + window
            found += 1
    return found


class SpanIndex:
    """The words of all documents. In memory a document takes 24 bytes; on disk a word takes 4, and as many windows as
    are in `window` words take about 50 more; resolving takes 25 for every window whose least key recurs."""

    def __init__(self, folder: Path, window: int) -> None:
        self._folder, self._window = folder, window
        self._words = ArrayFile(folder / "span-words.bin", np.uint32)
        self._keys = ArrayFile(folder / "span-keys.bin", np.uint64)
        self._starts = ArrayFile(folder / "span-starts.bin", np.uint32)
        self._counts: list[np.ndarray] = []
        self._key_counts: list[np.ndarray] = []

    def add(self, runs: WordRuns | None, documents: int) -> None:
        """Adds the next documents, in the order of precedence; None: they are not compared."""
        if runs is None:
            self._counts.append(np.zeros(documents, np.int64))
            self._key_counts.append(np.zeros(documents, np.int64))
            return
        for file, rows in ((self._words, runs.words), (self._keys, runs.keys), (self._starts, runs.starts)):
            file.append(rows)
        self._counts.append(np.diff(runs.word_offsets))
        self._key_counts.append(np.diff(runs.key_offsets))

    def resolve(self, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All repeats: runs uint32 (k, 2), first word and number of words, those of document i being
        `offsets[i]` to `offsets[i + 1]` (int64), the second value.

        Args:
            keep: bool[n], which documents stay; others count for nothing.
        """
        offsets, key_offsets = (
            np.concatenate([[0], *counts]).cumsum().astype(np.int64) for counts in (self._counts, self._key_counts)
        )
        words = self._words.open()
        keys, places, of_document = self._windows(words, offsets, key_offsets, keep)
        earlier = ArrayFile(self._folder / "span-earlier.bin", np.int64)
        for first, last in slices_of(of_document):
            earlier.append(np.full(of_document[last] - of_document[first], -1))
        before = earlier.open("r+")
        everyone = np.ones(len(of_document) - 1, bool)
        for part, rows in parts_by_key(keys, of_document, everyone, self._folder):
            order, same = _by_key(part)
            leads = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
            before[rows[order[same]]] = places[rows[order[leads[same]]]]
        return self._joined(words, offsets, places, before, of_document)

    def _windows(
        self, words: np.ndarray, offsets: np.ndarray, key_offsets: np.ndarray, keep: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys and places of the windows whose least key recurs, in files, and which are of which document."""
        least, starts = self._keys.open(), self._starts.open()
        marks = ArrayFile(self._folder / "span-recurs.bin", np.bool_)
        for first, last in slices_of(key_offsets):
            marks.append(np.zeros(key_offsets[last] - key_offsets[first], np.bool_))
        recurs = marks.open("r+")
        for part, rows in parts_by_key(least, key_offsets, keep, self._folder):
            recurs[rows[recurring(part)]] = True
        keys = ArrayFile(self._folder / "span-window-keys.bin", np.uint64)
        places = ArrayFile(self._folder / "span-places.bin", np.int64)
        counts = np.zeros(len(offsets) - 1, np.int64)
        for document in _with_any(recurs, key_offsets):
            begin, end = int(offsets[document]), int(offsets[document + 1])
            some_keys, some_places = np.empty(end - begin, np.uint64), np.empty(end - begin, np.int64)
            found = window_keys(
                words, begin, end, key_offsets[document], key_offsets[document + 1], starts, recurs, self._window,
                some_keys, some_places,
            )  # fmt: skip
            keys.append(some_keys[:found])
            places.append(some_places[:found])
            counts[document] = found
        return keys.open(), places.open(), np.concatenate([[0], counts]).cumsum().astype(np.int64)

    def _joined(
        self, words: np.ndarray, offsets: np.ndarray, places: np.ndarray, before: np.ndarray, of_document: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        runs = ArrayFile(self._folder / "span-runs.bin", np.uint32, 2)
        counts = np.zeros(len(offsets) - 1, np.int64)
        for first, last in slices_of(of_document):
            rows = slice(of_document[first], of_document[last])
            begins, ends = np.empty(rows.stop - rows.start, np.int64), np.empty(rows.stop - rows.start, np.int64)
            found = join_windows(words, self._window, places[rows], before[rows], begins, ends)
            documents = np.searchsorted(offsets, begins[:found], side="right") - 1
            runs.append(np.column_stack([begins[:found] - offsets[documents], ends[:found] - begins[:found]]))
            np.add.at(counts, documents, 1)
        return runs.open(), np.concatenate([[0], counts]).cumsum().astype(np.int64)


def span_bytes(texts: pa.LargeStringArray, rows: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs begin and end in their texts, int64 each, in bytes, with the marks that belong to them.

    Args:
        rows: the text of every run (int64), ascending.
        runs: first word and number of words, (k, 2).
    """
    touched, of_touched = np.unique(rows, return_inverse=True)
    some = texts.take(pa.array(touched))
    segments = segment(some)
    data, offsets = text_buffers(some)
    begins, ends = np.empty(len(runs), np.int64), np.empty(len(runs), np.int64)
    bound_runs(
        data, offsets, segments.word_offsets, segments.word_start, segments.word_end, of_touched.astype(np.int64),
        np.ascontiguousarray(runs, np.int64), begins, ends,
    )  # fmt: skip
    return begins, ends


@kernel
def bound_runs(data, offsets, word_offsets, word_start, word_end, rows, runs, begins, ends):
    """Marks up to the white space, or the word, that follows go with a run, and opening ones after white space."""
    for number in range(len(runs)):
        text = rows[number]
        begin, size = offsets[text], offsets[text + 1] - offsets[text]
        first = word_offsets[text] + runs[number, 0]
        following = first + runs[number, 1]
        limit = np.int64(word_start[following]) if following < word_offsets[text + 1] else size
        at = np.int64(word_end[following - 1])
        while at < limit and not is_gap(data[begin + at]):
            at += 1
        ends[number] = at
        limit = np.int64(word_end[first - 1]) if first > word_offsets[text] else np.int64(0)
        at = np.int64(word_start[first])
        while at > limit and not is_gap(data[begin + at - 1]):
            at -= 1
        opens = at == 0 or is_gap(data[begin + at - 1])
        begins[number] = at if opens else np.int64(word_start[first])


def _by_key(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys that recur, by key and as they come (rows, int64), and which of these equal the one before (bool)."""
    order = recurring(keys)
    ordered = keys[order]
    return order, np.insert(ordered[1:] == ordered[:-1], 0, False)[: len(order)]


def _with_any(marks: np.ndarray, offsets: np.ndarray) -> Iterator[int]:
    """Documents with a marked row."""
    for first, last in slices_of(offsets):
        rows = offsets[first] + np.flatnonzero(marks[offsets[first] : offsets[last]])
        yield from np.unique(np.searchsorted(offsets, rows, side="right") - 1).tolist()
