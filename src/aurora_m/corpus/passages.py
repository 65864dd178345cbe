"""Paragraphs or lines of texts as passages with keys, and texts with spans cut out of them.

Passages are prose. Fenced code is left alone, and so are headings (`#`, or underlined) and, line by line, what begins
like a quote: they belong to what follows. A heading goes with the passage that is all of its section.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..workspace import kernel
from .fenced_code import is_underlined
from .hashing import fold
from .kernels import BEGINS_PARAGRAPH, HAS_LETTER, class_of, decode, fence_begins
from .segments import Segments, text_buffers
from .unicode_tables import DIGIT, SINGLE, unicode_tables

_WORD_WEIGHT = 2  # of a word of letters; a Han or kana character, and a number, weighs 1, as in `decontaminate`
BEGIN, END, FIRST_WORD, WORDS = range(4)  # columns of `Passages.spans`
_TEXT, _TITLE, _SPARED = range(3)


@dataclass(frozen=True)
class Passages:
    """Passages of n texts; those of text i are `offsets[i]` to `offsets[i + 1]`, in the order of the text.

    `keys` is uint64, equal for equal passages. `spans` is uint32 (passages, 4): the bytes to cut, from the start of the
    text and of whole lines, then the first of their words and how many. `words` is int32[n], all words of each text.
    """

    keys: np.ndarray
    spans: np.ndarray
    offsets: np.ndarray
    words: np.ndarray

    def __len__(self) -> int:
        return len(self.words)


def find_passages(texts: pa.LargeStringArray, segments: Segments, *, by_line: bool, min_words: int) -> Passages:
    """The passages of at least `min_words`, two Han or kana characters or numbers being one.

    Equal passages have the same lines, but for white space at their ends. Headings have no part in the key.
    """
    data, offsets = text_buffers(texts)
    tables = unicode_tables()
    n, most = len(segments), len(segments.line_hash)
    keys, spans = np.empty(most, np.uint64), np.empty((most, 4), np.uint32)
    passage_offsets, words = np.zeros(n + 1, np.int64), np.zeros(n, np.int32)
    found = gather_passages(
        data, offsets, tables.block_of, tables.classes, segments.word_offsets, segments.word_start,
        segments.line_offsets, segments.line_start, segments.line_end, segments.line_hash,
        segments.line_characters, segments.line_flags, by_line, _WORD_WEIGHT * min_words, keys, spans,
        passage_offsets, words,
    )  # fmt: skip
    return Passages(keys[:found].copy(), spans[:found].copy(), passage_offsets, words)


@kernel
def _weight_of(data, at, end, block_of, classes):
    """The weight of the word that begins at a byte."""
    if data[at] < 0x80:
        return 1 if data[at] <= 57 else _WORD_WEIGHT
    return 1 if class_of(decode(data, at, end)[0], block_of, classes) & (SINGLE | DIGIT) else _WORD_WEIGHT


@kernel
def gather_passages(
    data, offsets, block_of, classes, word_offsets, word_start, line_offsets, line_start, line_end,
    line_hash, line_characters, line_flags, by_line, least_weight, keys, spans, passage_offsets, words,
):  # fmt: skip
    """Fills what `Passages` has; returns how many passages there are."""
    found = np.int64(0)
    for text in range(len(offsets) - 1):
        begin, end = offsets[text], offsets[text + 1]
        last_line = line_offsets[text + 1]
        first_word, last_word = word_offsets[text], word_offsets[text + 1]
        word = first_word
        words[text] = last_word - first_word
        fenced = underlines = opened = False
        key = np.uint64(0)
        starts = stops = starting_word = weight = letters = np.int64(0)  # of the passage that is open
        title = title_word = np.int64(-1)  # where the heading begins that the line before is
        above = above_word = np.int64(-1)  # and that which the open passage stands under
        for line in range(line_offsets[text], last_line + 1):
            kind = _TITLE  # what comes after the last line ends a section, as a heading does
            line_begins, line_stops = end, end
            underline = False
            if line < last_line:
                line_begins, line_stops = begin + line_start[line], begin + line_end[line]
                underline = underlines
                underlines = False
                if not underline and fence_begins(data, line_begins, line_stops):
                    fenced = not fenced
                    kind = _SPARED
                elif fenced or (by_line and data[line_begins] == 62):
                    kind = _SPARED
                elif not underline:
                    underlines = is_underlined(
                        data, begin, line, last_line, line_start, line_end, line_characters, line_flags
                    )
                    if not underlines and data[line_begins] != 35:
                        kind = _TEXT
            if opened and (kind != _TEXT or by_line or line_flags[line] & BEGINS_PARAGRAPH):
                opened = False
                if weight >= least_weight and letters:
                    if above >= 0 and kind == _TITLE:
                        starts, starting_word = above, above_word
                    while starts > begin and data[starts - 1] != 10:
                        starts -= 1
                    while stops < end and data[stops] != 10:
                        stops += 1
                    keys[found] = key
                    spans[found, BEGIN], spans[found, END] = starts - begin, stops - begin
                    spans[found, FIRST_WORD], spans[found, WORDS] = starting_word - first_word, word - starting_word
                    found += 1
            if kind == _TEXT:
                if not opened:
                    opened, key, starts, starting_word, weight, letters = True, np.uint64(0), line_begins, word, 0, 0
                    above, above_word = title, title_word
                key = fold(key, line_hash[line])
                stops = line_stops
                letters |= line_flags[line] & HAS_LETTER
            if kind != _TITLE:
                title = title_word = np.int64(-1)
            elif not underline:
                title, title_word = line_begins, word
            while word < last_word and begin + word_start[word] < line_stops:
                if kind == _TEXT:
                    weight += _weight_of(data, begin + word_start[word], end, block_of, classes)
                word += 1
        passage_offsets[text + 1] = found
    return found


def cut(
    texts: pa.LargeStringArray, rows: np.ndarray, begins: np.ndarray, ends: np.ndarray
) -> tuple[pa.LargeStringArray, np.ndarray]:
    """Texts without spans of their bytes, and how many bytes went of each (int64[n]), with white space.

    Of the white space before and after a span the wider stays: its line breaks, and the indentation of what follows.
    A text that was cut keeps none at the end, and no blank lines at the beginning.

    Args:
        rows: the text of every span (int64), ascending; spans of one text are in order and may overlap.
    """
    data, offsets = text_buffers(texts)
    span_offsets = np.searchsorted(rows, np.arange(len(texts) + 1)).astype(np.int64)
    left, left_offsets = np.empty(int(offsets[-1] - offsets[0]), np.uint8), np.zeros(len(offsets), np.int64)
    copy_without(
        data, offsets, span_offsets, np.asarray(begins, np.int64), np.asarray(ends, np.int64), left, left_offsets
    )
    changed = pa.LargeStringArray.from_buffers(
        len(texts), pa.py_buffer(left_offsets), pa.py_buffer(left[: left_offsets[-1]].copy())
    )
    return changed, np.diff(offsets) - np.diff(left_offsets)


@kernel
def is_gap(byte):
    return byte == 10 or byte == 32 or byte == 9


@kernel
def _copy(data, begin, end, out, filled):
    """Copies a span of bytes; returns where the next go. Unsigned, so that many bytes are copied at once."""
    first, place = np.uint64(begin), np.uint64(filled)
    for i in range(np.uint64(end - begin)):
        out[place + i] = data[first + i]
    return filled + end - begin


@kernel
def copy_without(data, offsets, span_offsets, begins, ends, out, out_offsets):
    """Copies every text without its spans."""
    filled = np.int64(0)
    for text in range(len(offsets) - 1):
        begin, end = offsets[text], offsets[text + 1]
        at, start = begin, filled
        span, last_span = span_offsets[text], span_offsets[text + 1]
        if span == last_span:
            filled = _copy(data, at, end, out, filled)
            out_offsets[text + 1] = filled
            continue
        while span < last_span:
            stop = begin + begins[span]
            if at < stop:
                filled = _copy(data, at, stop, out, filled)
                at = stop
            # Spans with nothing but white space between them go as one.
            while span < last_span and begin + begins[span] <= at:
                at = max(at, begin + ends[span])
                span += 1
                following = at
                while following < end and is_gap(data[following]):
                    following += 1
                if span < last_span and begin + begins[span] <= following:
                    at = max(at, begin + begins[span])
            before = filled
            breaks_before = 0
            while before > start and is_gap(out[before - 1]):
                before -= 1
                breaks_before += out[before] == 10
            breaks_after = 0
            indentation = at  # what stands between the last line break and the text that follows
            following = at
            while following < end and is_gap(data[following]):
                if data[following] == 10:
                    breaks_after += 1
                    indentation = following + 1
                following += 1
            if before == start:
                filled = start
                at = indentation if breaks_after else following
            elif breaks_after:
                breaks = max(breaks_before, breaks_after)
                filled = before
                for _ in range(breaks):
                    out[filled] = 10
                    filled += 1
                at = indentation
            elif filled > before:
                at = following
        filled = _copy(data, at, end, out, filled)
        while filled > start and is_gap(out[filled - 1]):
            filled -= 1
        out_offsets[text + 1] = filled
