"""Compiled loops that train fastText's classifier: texts to words, words to the rows they stand for, gradient steps.

The definitions are fastText's own (`dictionary.cc`, `model.cc`): every word, n-gram of its characters and n-gram of
words is a row of the input matrix, a text is the mean of its rows, and each text is one step of gradient descent.
A row that comes several times is added once, with its weight: long texts repeat themselves, and it is the same sum.
"""

import math

import numpy as np

from ..workspace import kernel
from .fasttext_kernels import (
    LABEL_PREFIX,
    LINE_END,
    WORD_NGRAM_PRIME,
    begins_with,
    fasttext_hash,
    find_ngrams,
    find_word,
    is_line_end,
    is_space,
    pad_word,
    word_key,
)


@kernel
def find_tokens(data, offsets, token_offsets, begins, ends, keys):
    """The words of every text as fastText splits them: set off by ASCII white space. The word `</s>` ends a text.

    `data` ends in `</s>`, and there lies the last word of every text. Labels within a text are left out.
    """
    tokens = 0
    for text in range(len(offsets) - 1):
        i, end = offsets[text], offsets[text + 1]
        token_offsets[text] = tokens
        ended = False
        while not ended:
            while i < end and is_space(data[i]):
                i += 1
            begin = i
            while i < end and not is_space(data[i]):
                i += 1
            ended = i == begin or is_line_end(data, begin, i)
            first, last = (len(data) - len(LINE_END), len(data)) if ended else (begin, i)
            if not begins_with(data, first, last, LABEL_PREFIX):
                begins[tokens], ends[tokens] = first, last
                keys[tokens] = word_key(data, first, last)
                tokens += 1
    token_offsets[len(offsets) - 1] = tokens


@kernel
def _put(row, first, filled, place, rows, counts):
    """Counts a row of a text whose rows begin at `first`; `place` has where a row was put last (Briggs and Torczon)."""
    at = place[row]
    if first <= at < filled and rows[at] == row:
        counts[at] += np.float32(1)
        return filled
    place[row], rows[filled], counts[filled] = filled, row, 1
    return filled + 1


@kernel
def find_rows(
    data, token_offsets, begins, ends, keys, word_keys, word_ids, words, buckets, reciprocal, kept, shortest, longest,
    word_ngrams, padded, found, hashes, place, row_offsets, rows, weights,
):  # fmt: skip
    """The rows of every text (int32), each once, and the share of the text's mean that each has (float32).

    `hashes` (int32) has room for the words of a text, `padded` (int8) for the longest word and two more, `found`
    (int64) for all n-grams of it; `place` (int64) is as long as the input matrix.
    """
    filled = np.int64(0)
    for text in range(len(token_offsets) - 1):
        first, total, hashed = filled, 0, 0
        row_offsets[text] = filled
        for token in range(token_offsets[text], token_offsets[text + 1]):
            begin, end = begins[token], ends[token]
            entry = find_word(word_keys, word_ids, keys[token])
            if entry >= 0:
                filled = _put(entry, first, filled, place, rows, weights)
                total += 1
            if longest > 0 and not is_line_end(data, begin, end):
                length, count = pad_word(data, begin, end, padded), 0
                for at in range(length):
                    if padded[at] & 0xC0 != 0x80:
                        count = find_ngrams(
                            padded, length, at, words, buckets, reciprocal, kept, shortest, longest, found, count
                        )
                for number in range(count):
                    filled = _put(found[number], first, filled, place, rows, weights)
                total += count
            if word_ngrams > 1:
                hashes[hashed] = fasttext_hash(data, begin, end)
                hashed += 1
        for start in range(hashed):
            value = np.uint64(np.int64(hashes[start]))
            for last in range(start + 1, min(hashed, start + word_ngrams)):
                value = value * WORD_NGRAM_PRIME + np.uint64(np.int64(hashes[last]))
                filled = _put(np.int64(words + value % buckets), first, filled, place, rows, weights)
                total += 1
        for at in range(first, filled):
            weights[at] /= np.float32(total)
    row_offsets[len(token_offsets) - 1] = filled


@kernel
def _add_scaled(total, row, scale):
    # Blocks of a fixed length become vector operations; see `fasttext_kernels._add`.
    whole = len(total) & ~15
    for block in range(0, whole, 16):
        for d in range(16):
            total[block + d] += scale * row[block + d]
    for d in range(whole, len(total)):
        total[d] += scale * row[d]


@kernel
def train(
    order, labels, row_offsets, rows, weights, sizes, done, size, lr_peak, input, output, hidden, gradient, scores
):
    """One step of gradient descent for every text named in `order` (int64), with the softmax loss.

    The learning rate falls linearly from `lr_peak` at word 0 to nothing at word `size`; `done` words were trained on
    before, and `sizes` (int64) has those of each text. `hidden`, `gradient` (float32[dim]) and `scores`
    (float32[labels]) are scratch. Returns the sum of the losses, in nats.
    """
    loss = 0.0
    for text in order:
        first, last = row_offsets[text], row_offsets[text + 1]
        lr = np.float32(lr_peak * max(0.0, 1.0 - done / size))
        done += sizes[text]
        if first == last:
            continue
        hidden[:] = 0
        for at in range(first, last):
            _add_scaled(hidden, input[rows[at]], weights[at])
        most = np.float32(-np.inf)
        for label in range(len(output)):
            score = np.float32(0)
            for d in range(len(hidden)):
                score += output[label, d] * hidden[d]
            scores[label] = score
            most = max(most, score)
        total = np.float32(0)
        for label in range(len(output)):
            scores[label] = math.exp(scores[label] - most)
            total += scores[label]
        gradient[:] = 0
        for label in range(len(output)):
            share = scores[label] / total
            if label == labels[text]:
                loss -= math.log(max(share, np.float32(1e-30)))
            step = lr * (np.float32(label == labels[text]) - share)
            _add_scaled(gradient, output[label], step)
            _add_scaled(output[label], hidden, step)
        for at in range(first, last):
            _add_scaled(input[rows[at]], gradient, weights[at])
    return loss
