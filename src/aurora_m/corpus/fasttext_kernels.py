"""Compiled loops of fastText's classifier: the words of a file, texts to hidden vectors, hidden vectors to labels.

The definitions are those of fastText's `dictionary.cc` and `loss.cc` (Bojanowski et al. 2017, Joulin et al. 2016): a
text is the mean of the rows of its words and of the hashed n-grams of their characters. As in `kernels.py`, kernels
release the GIL, get all arrays from outside, and never read past the end of a text, whatever its bytes.
"""

import math

import numpy as np

from ..workspace import kernel
from .hashing import HASH_PRIME, HASH_START, mix

# fastText's 32-bit FNV-1a takes bytes as signed. Sums of 64 bits end in the same 32 bits, so it is cut only when used.
_FNV_START = np.uint64(2166136261)
_FNV_PRIME = np.uint64(16777619)
_LOW_32 = np.uint64(0xFFFFFFFF)
WORD_NGRAM_PRIME = np.uint64(116049371)

_LESS_THAN = 60  # "<" and ">" stand before and after every word
_GREATER_THAN = 62
LABEL_PREFIX = np.frombuffer(b"__label__", np.uint8)
LINE_END = np.frombuffer(b"</s>", np.uint8)

SMALLEST = 1e-5
"""What `loss.cc` adds to a probability before its logarithm, and below which it leaves a branch of the tree."""


@kernel
def is_space(byte):
    return byte <= 32 and (byte == 32 or 9 <= byte <= 13 or byte == 0)


@kernel
def begins_with(data, begin, end, prefix):
    if end - begin < len(prefix):
        return False
    same = True
    for i in range(len(prefix)):
        same &= data[begin + i] == prefix[i]
    return same


@kernel
def is_line_end(data, begin, end):
    return end - begin == 4 and data[begin] == _LESS_THAN and begins_with(data, begin, end, LINE_END)


@kernel
def word_key(data, begin, end):
    """64 bits by which words are told apart; never 0, which marks an empty slot."""
    value = HASH_START
    for i in range(begin, end):
        value = (value ^ np.uint64(data[i])) * HASH_PRIME
    return mix(value) | np.uint64(1)


@kernel
def _int64_at(data, at):
    value = np.uint64(0)
    for i in range(8):
        value |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return np.int64(value)


@kernel
def read_entries(data, at, begins, ends, counts, types):
    """The entries of a dictionary that begins at byte `at`: where the words lie, their counts (int64) and types.

    Returns the byte after the dictionary, or -1 where the file ends before.
    """
    for entry in range(len(begins)):
        begins[entry] = at
        while at < len(data) and data[at] != 0:
            at += 1
        ends[entry] = at
        if at + 10 > len(data):
            return -1
        counts[entry] = _int64_at(data, at + 1)
        types[entry] = data[at + 9]
        at += 10
    return at


@kernel
def index_words(data, begins, ends, keys, ids):
    """Puts the words into an open-addressing table (a power of two, `keys` all 0)."""
    mask = np.uint64(len(keys) - 1)
    for entry in range(len(begins)):
        key = word_key(data, begins[entry], ends[entry])
        slot = key & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        keys[slot], ids[slot] = key, entry


@kernel
def find_word(keys, ids, key):
    mask = np.uint64(len(keys) - 1)
    slot = key & mask
    while keys[slot] != 0:
        if keys[slot] == key:
            return np.int64(ids[slot])
        slot = (slot + np.uint64(1)) & mask
    return np.int64(-1)


@kernel
def _add(total, row):
    # Blocks of a fixed length become two vector additions; a loop of unknown length is left scalar up to 32.
    whole = len(total) & ~15
    for block in range(0, whole, 16):
        for d in range(16):
            total[block + d] += row[block + d]
    for d in range(whole, len(total)):
        total[d] += row[d]


@kernel
def _add_four(total, one, two, three, four):
    whole = len(total) & ~15
    for block in range(0, whole, 16):
        for d in range(block, block + 16):
            total[d] += (one[d] + two[d]) + (three[d] + four[d])
    for d in range(whole, len(total)):
        total[d] += (one[d] + two[d]) + (three[d] + four[d])


@kernel
def _remainder(value, buckets, reciprocal):
    """A 32-bit value modulo the number of buckets, by multiplication: `reciprocal` is 2**32 // buckets."""
    rest = value - ((value * reciprocal) >> np.uint64(32)) * buckets
    # The quotient may be too small by one.
    if rest >= buckets:
        rest -= buckets
    return rest


@kernel
def _set_bits(bits):
    """How many bits are set (Warren, Hacker's Delight, 5-1). The compiler knows this form: it is one instruction."""
    bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (bits * np.uint64(0x0101010101010101)) >> np.uint64(56)


@kernel
def _find_row(bucket, words, kept, found, count):
    """Puts the row of a bucket at the end of `found`; how many are there then: no more, where pruning left none.

    `kept` is the index of the buckets that pruning kept (`fasttext_model`), empty where it kept all.
    """
    if len(kept) == 0:
        found[count] = words + np.int64(bucket)
        return count + 1
    # No branch, which would be guessed wrong half the time: what was pruned is overwritten by the next.
    entry, bit = kept[np.int64(bucket >> np.uint64(5))], bucket & np.uint64(31)
    before = entry & ((np.uint64(1) << bit) - np.uint64(1))
    found[count] = np.int64((entry >> np.uint64(32)) + _set_bits(before))
    return count + np.int64((entry >> bit) & np.uint64(1))


@kernel
def _add_rows(total, rows, found, count):
    whole = count & ~3
    for at in range(0, whole, 4):
        _add_four(total, rows[found[at]], rows[found[at + 1]], rows[found[at + 2]], rows[found[at + 3]])
    for at in range(whole, count):
        _add(total, rows[found[at]])


@kernel
def find_ngrams(padded, length, begin, words, buckets, reciprocal, kept, shortest, longest, found, count):
    """Puts the rows of the n-grams that begin at one character of a padded word (int8) at the end of `found`; how many
    are there then."""
    value = _FNV_START
    at, n = begin, 1
    while at < length and n <= longest:
        value = (value ^ np.uint64(np.int64(padded[at]))) * _FNV_PRIME
        at += 1
        while at < length and padded[at] & 0xC0 == 0x80:
            value = (value ^ np.uint64(np.int64(padded[at]))) * _FNV_PRIME
            at += 1
        if n >= shortest and not (n == 1 and (begin == 0 or at == length)):
            bucket = _remainder(value & _LOW_32, buckets, reciprocal)
            count = _find_row(bucket, words, kept, found, count)
        n += 1
    return count


@kernel
def _add_ngrams(total, rows, padded, length, words, buckets, reciprocal, kept, shortest, longest, found):
    """Adds the rows of the n-grams of the characters of a padded word (int8); how many were added.

    Rows are found first and added in fours: the additions do not wait for the memory of the next.
    """
    added = count = 0
    for begin in range(length):
        if padded[begin] & 0xC0 == 0x80:
            continue
        if count + longest > len(found):
            _add_rows(total, rows, found, count)
            added += count
            count = 0
        count = find_ngrams(padded, length, begin, words, buckets, reciprocal, kept, shortest, longest, found, count)
    _add_rows(total, rows, found, count)
    return added + count


@kernel
def pad_word(data, begin, end, padded):
    """Writes a word between "<" and ">" (int8); how many bytes that are."""
    length = end - begin + 2
    padded[0], padded[length - 1] = _LESS_THAN, _GREATER_THAN
    for at in range(begin, end):
        padded[at - begin + 1] = data[at]
    return length


@kernel
def _add_word_ngrams(total, rows, hashes, hashed, words, buckets, kept, word_ngrams, found):
    """Adds the rows of the n-grams of words, given the words' 32-bit hashes (int32); how many were added."""
    added = count = 0
    for first in range(hashed):
        if count + word_ngrams > len(found):
            _add_rows(total, rows, found, count)
            added += count
            count = 0
        value = np.uint64(np.int64(hashes[first]))
        for last in range(first + 1, min(hashed, first + word_ngrams)):
            value = value * WORD_NGRAM_PRIME + np.uint64(np.int64(hashes[last]))
            count = _find_row(value % buckets, words, kept, found, count)
    _add_rows(total, rows, found, count)
    return added + count


@kernel
def fasttext_hash(data, begin, end):
    value = _FNV_START
    for i in range(begin, end):
        value = (value ^ np.uint64(np.int64(np.int8(data[i])))) * _FNV_PRIME
    return np.int32(value & _LOW_32)


@kernel
def _sum_word(
    total, data, begin, end, key, rows, words, buckets, reciprocal, keys, ids, kept, shortest, longest, padded, found
):
    """Makes `total` the sum of the rows of a word and of its n-grams; how many these are, or -1 for a label."""
    total[:] = 0
    entry = find_word(keys, ids, key)
    if entry >= words or (entry < 0 and begins_with(data, begin, end, LABEL_PREFIX)):
        return -1
    added = 0
    if entry >= 0:
        _add(total, rows[entry])
        added = 1
    if longest > 0 and not is_line_end(data, begin, end):
        length = pad_word(data, begin, end, padded)
        added += _add_ngrams(total, rows, padded, length, words, buckets, reciprocal, kept, shortest, longest, found)
    return added


@kernel
def embed(
    data, offsets, rows, words, buckets, reciprocal, keys, ids, kept, shortest, longest, word_ngrams,
    padded, hashes, found, cache_keys, cache_counts, cache_hashes, cache_rows, hidden, counts,
):  # fmt: skip
    """The mean of the rows of every text, float32 (n, dim), and of how many rows it is the mean.

    A text is one line: line breaks are spaces, and the word `</s>` ends it wherever it stands. The rows of a word are
    summed once and kept in a direct-mapped cache of this call, so that a frequent word costs one addition. `padded`
    (int8) and `hashes` (int32) have room for the longest word and for the words of a text; `found` (int64) is scratch.
    """
    mask = np.uint64(len(cache_keys) - 1)
    for text in range(len(offsets) - 1):
        i, end = offsets[text], offsets[text + 1]
        total = hidden[text]
        total[:] = 0
        added = hashed = 0
        ended = False
        while not ended:
            while i < end and is_space(data[i]):
                i += 1
            begin = i
            value = HASH_START
            while i < end and not is_space(data[i]):
                value = (value ^ np.uint64(data[i])) * HASH_PRIME
                i += 1
            ended = i == begin or is_line_end(data, begin, i)
            word, first, last = (LINE_END, 0, len(LINE_END)) if ended else (data, begin, i)
            key = word_key(word, first, last) if ended else mix(value) | np.uint64(1)
            slot = key & mask
            if cache_keys[slot] != key:
                cache_keys[slot] = key
                if word_ngrams > 1:
                    cache_hashes[slot] = fasttext_hash(word, first, last)
                cache_counts[slot] = _sum_word(
                    cache_rows[slot], word, first, last, key, rows, words, buckets, reciprocal, keys, ids, kept,
                    shortest, longest, padded, found,
                )  # fmt: skip
            if cache_counts[slot] > 0:
                _add(total, cache_rows[slot])
                added += cache_counts[slot]
            if word_ngrams > 1 and cache_counts[slot] >= 0:
                hashes[hashed] = cache_hashes[slot]
                hashed += 1
        if word_ngrams > 1:
            added += _add_word_ngrams(total, rows, hashes, hashed, words, buckets, kept, word_ngrams, found)
        counts[text] = added
        if added > 0:
            scale = np.float32(1.0 / added)
            for d in range(len(total)):
                total[d] *= scale


@kernel
def _keep(labels, scores, kept, label, score):
    """Puts a label among the best so far, best first; how many there are then. Of equal ones the last goes first."""
    if kept == len(labels):
        if score < scores[kept - 1]:
            return kept
        kept -= 1
    at = kept
    while at > 0 and scores[at - 1] <= score:
        labels[at], scores[at] = labels[at - 1], scores[at - 1]
        at -= 1
    labels[at], scores[at] = label, score
    return kept + 1


@kernel
def _score_all(hidden, columns, outputs):
    """The product of a hidden vector and every row of the output matrix, which is given transposed."""
    outputs[:] = 0
    for d in range(len(columns)):
        weight, column = hidden[d], columns[d]
        for label in range(len(outputs)):
            outputs[label] += weight * column[label]


@kernel
def walk_tree(hidden, counts, columns, children, outputs, stack, stack_scores, labels, scores):
    """The best labels (int32, n x k) of a hierarchical softmax and their probabilities (float32), best first.

    Nodes below `len(outputs)` are labels, the last node is the root. The likelier child is visited first, so that
    most branches fall short of the best so far; what comes out does not depend on the order.
    """
    leaves = len(outputs)
    for text in range(len(hidden)):
        if counts[text] == 0:
            continue
        _score_all(hidden[text], columns, outputs)
        kept, top = 0, 1
        stack[0], stack_scores[0] = len(children) - 1, 1.0
        least = SMALLEST
        while top > 0:
            top -= 1
            node, score = np.int64(stack[top]), stack_scores[top]
            while node >= leaves and score >= least:
                # The way down hangs on the sign alone, and need not wait for the probability.
                output = np.float64(outputs[node - leaves])
                right = np.int64(output > 0)
                likely = 1.0 / (1.0 + math.exp(-abs(output)))
                second = score * (1.0 - likely + SMALLEST)
                stack[top], stack_scores[top] = children[node, 1 - right], second
                top += second >= least
                node, score = np.int64(children[node, right]), score * (likely + SMALLEST)
            if score >= least:
                kept = _keep(labels[text], scores[text], kept, node, np.float32(score))
                if kept == labels.shape[1]:
                    least = max(SMALLEST, np.float64(scores[text, kept - 1]))


@kernel
def _sigmoid(x, sigmoids):
    if x > 8:
        return np.float32(1)
    if x >= -8:
        return sigmoids[np.int64((x + np.float32(8)) * np.float32(len(sigmoids) - 1) / np.float32(8) / np.float32(2))]
    return np.float32(0)


@kernel
def score_labels(hidden, counts, columns, softmax, sigmoids, outputs, labels, scores):
    """The best labels (int32, n x k) of a softmax, or of one logistic per label, and their probabilities, best first.

    The logistic is fastText's table of 513 values from -8 to 8, with its steps.
    """
    for text in range(len(hidden)):
        if counts[text] == 0:
            continue
        _score_all(hidden[text], columns, outputs)
        if softmax:
            most = outputs[0]
            for label in range(len(outputs)):
                most = max(most, outputs[label])
            total = np.float32(0)
            for label in range(len(outputs)):
                outputs[label] = math.exp(outputs[label] - most)
                total += outputs[label]
            for label in range(len(outputs)):
                outputs[label] /= total
        else:
            for label in range(len(outputs)):
                outputs[label] = _sigmoid(outputs[label], sigmoids)
        kept = 0
        for label in range(len(outputs)):
            kept = _keep(labels[text], scores[text], kept, label, np.float32(outputs[label] + SMALLEST))
