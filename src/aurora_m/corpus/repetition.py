"""Compiled loops over the hashes of words and lines: what a text says more than once.

Words and lines come as `segments.Segments` has them: those of text i are `offsets[i]` to `offsets[i + 1]`. Equal means
equal in 64-bit hash. The tables are open-addressing, of `(key, stamp << 32 | tally)`; entries of another stamp count
as empty, so that one table serves every text of a batch without being cleared.
"""

import numpy as np

from ..workspace import kernel
from .hashing import fold
from .kernels import BEGINS_PARAGRAPH, HAS_LETTER

LONGEST_NGRAM = 10
# Columns of `count_ngrams`; lengths are characters of words, without what lies between them.
NGRAM_COUNTS = (
    *(f"top_{n}_gram" for n in (2, 3, 4)),  # length of the most frequent n-gram times its count, 0 if none comes twice
    *(f"duplicate_{n}_grams" for n in range(5, LONGEST_NGRAM + 1)),  # length of the words in a repeat of an n-gram
    "repeated_5_grams",  # how many n-grams come more than once, first ones too
)
_TOP, _DUPLICATE, _REPEATED = 2, 5, len(NGRAM_COUNTS) - 1
_TALLY = np.uint64(0xFFFFFFFF)
_STAMP_SHIFT = np.uint64(32)
_ONE = np.uint64(1)


@kernel
def _mask_for(entries):
    """The mask of the smallest table (a power of two) that the entries fill at most by half."""
    size = np.int64(2)
    while size < 2 * entries:
        size *= 2
    return np.uint64(size - 1)


@kernel
def _tally(table, mask, key, stamp):
    """Counts a key once more; returns its slot and its count so far, this one included."""
    slot = key & mask
    while table[slot, 1] >> _STAMP_SHIFT == stamp:
        if table[slot, 0] == key:
            table[slot, 1] += _ONE
            return slot, np.int64(table[slot, 1] & _TALLY)
        slot = (slot + _ONE) & mask
    table[slot, 0], table[slot, 1] = key, (stamp << _STAMP_SHIFT) | _ONE
    return slot, np.int64(1)


@kernel
def count_ngrams(word_offsets, word_hash, word_characters, table, places, keys, slots, out):
    """NGRAM_COUNTS of every text, int64 (n, len(NGRAM_COUNTS)).

    An n-gram can come twice only where both the (n-1)-grams it is made of do, so that every length looks only at the
    places the one before has left: two tables' work for nine lengths. A repeat is an occurrence after the first; a
    word in several repeats counts once.

    `table` is uint64 (a power of two at least twice the longest text's words, 2), zero before the first call; `places`
    (int64), `keys` (uint64), `slots` (uint64) are scratch of that many words.
    """
    stamp = np.uint64(0)
    for text in range(len(word_offsets) - 1):
        first, last = word_offsets[text], word_offsets[text + 1]
        left = last - first
        for n in range(2, LONGEST_NGRAM + 1):
            stamp += _ONE
            mask = _mask_for(left)
            found = most = 0
            longest = covered = np.int64(0)
            covered_to = first
            for number in range(left if n > 2 else left - 1):
                if n == 2:
                    place = first + number
                    key = fold(word_hash[place], word_hash[place + 1])
                else:
                    place = places[np.uint64(number)]
                    if number + 1 == left or places[np.uint64(number + 1)] != place + 1:
                        continue
                    key = fold(keys[np.uint64(number)], word_hash[np.uint64(place + n - 1)])
                slot, tally = _tally(table, mask, key, stamp)
                at = np.uint64(found)
                places[at], keys[at], slots[at] = place, key, slot
                found += 1
                if tally < 2:
                    continue
                if n < _DUPLICATE:
                    if tally >= most:
                        characters = np.int64(0)
                        for word in range(place, place + n):
                            characters += word_characters[word]
                        longest = max(longest, characters * tally) if tally == most else characters * tally
                        most = tally
                else:
                    for word in range(max(covered_to, place), place + n):
                        covered += word_characters[word]
                    covered_to = place + n
            out[text, n - _TOP] = longest if n < _DUPLICATE else covered
            left = 0
            for number in range(np.uint64(found)):  # without a branch, which would be guessed wrong half of the time
                places[np.uint64(left)], keys[np.uint64(left)] = places[number], keys[number]
                left += np.int64(table[slots[number], 1] & _TALLY > _ONE)
            if n == _DUPLICATE:
                out[text, _REPEATED] = left
            if left < 2:
                break


# Columns of `count_lines`.
LINE_COUNTS = (
    "duplicate_lines",  # lines that repeat an earlier one of the text
    "duplicate_line_characters",
    "paragraphs",  # runs of lines without a blank line between them
    "duplicate_paragraphs",
    "duplicate_paragraph_characters",  # without line breaks
)
_LINES, _LINE_CHARACTERS, _PARAGRAPHS, _DUPLICATE_PARAGRAPHS, _PARAGRAPH_CHARACTERS = range(len(LINE_COUNTS))


@kernel
def count_lines(line_offsets, line_hash, line_characters, line_flags, table, out):
    """LINE_COUNTS of every text, int64 (n, len(LINE_COUNTS)). Only lines, and paragraphs, with a letter count.

    `table` is as for `count_ngrams`, with lines for words, and zero before the call.
    """
    stamp = np.uint64(0)
    for text in range(len(line_offsets) - 1):
        first, last = line_offsets[text], line_offsets[text + 1]
        count = out[text]
        mask = _mask_for(last - first)
        stamp += _ONE
        for line in range(first, last):
            if line_flags[line] & HAS_LETTER and _tally(table, mask, line_hash[line], stamp)[1] > 1:
                count[_LINES] += 1
                count[_LINE_CHARACTERS] += line_characters[line]
        stamp += _ONE
        key = np.uint64(0)
        characters = lettered = 0
        for line in range(first, last):
            key = fold(key, line_hash[line])
            characters += line_characters[line]
            lettered |= line_flags[line] & HAS_LETTER
            if line + 1 < last and line_flags[line + 1] & BEGINS_PARAGRAPH == 0:
                continue
            if lettered:
                count[_PARAGRAPHS] += 1
                if _tally(table, mask, key, stamp)[1] > 1:
                    count[_DUPLICATE_PARAGRAPHS] += 1
                    count[_PARAGRAPH_CHARACTERS] += characters
            key = np.uint64(0)
            characters = lettered = 0
