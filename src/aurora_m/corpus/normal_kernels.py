"""Compiled loops that find what normalisation has to change: the quick check of Unicode Standard Annex 15, section 9.

Texts come as in `kernels`, and `forms` and `pairs` as `normal_forms.unicode_forms` has them.
"""

import numpy as np

from ..workspace import kernel
from .kernels import decode

# Bits of a code point's form, above its canonical combining class.
COMBINING_CLASS = 0xFF
NOT_IN_FORM = 256  # no text in form C has it, or it may change with what is beside it
COMPOSES = 512  # after certain others
SPACE = 1024
CONTROL = 2048  # but for tabs and line feeds; the byte-order mark too
_NO_CODE = -1


@kernel
def _is_pair(pairs, first, second):
    """Whether two code points compose to another."""
    wanted = np.uint64(first) << np.uint64(32) | np.uint64(second)
    low, high = 0, len(pairs)
    while low < high:
        middle = (low + high) >> 1
        if pairs[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low < len(pairs) and pairs[low] == wanted


@kernel
def _is_abnormal(data, i, end, forms, pairs, unwanted):
    """Whether a text holds characters of a form that is unwanted, or may not be in form C.

    Marks out of order, those that compose with the character before them, and those that compose with anything and
    follow another mark.
    """
    before = np.int64(_NO_CODE)
    last_class = 0
    while i < end:
        # Unsigned, what is below 32 is above 95 then: one comparison for all ASCII that is printed.
        if np.uint8(data[np.uint64(i)] - np.uint8(32)) < np.uint8(95):
            before = np.int64(data[np.uint64(i)])
            last_class = 0
            i += 1
            continue
        code = np.int64(data[np.uint64(i)])
        if 0xE0 <= code < 0xF0 and i + 2 < end:  # as decode does; a call costs more than these shifts
            second, third = np.int64(data[np.uint64(i + 1)]), np.int64(data[np.uint64(i + 2)])
            code = ((code & 0x0F) << 12) | ((second & 0x3F) << 6) | (third & 0x3F)
            i += 3
        else:
            code, i = decode(data, i, end)
        form = np.int64(forms[np.uint64(code)])
        if form & unwanted:
            return True
        this_class = form & COMBINING_CLASS
        if form & COMPOSES and (last_class or (before != _NO_CODE and _is_pair(pairs, before, code))):
            return True
        if this_class and this_class < last_class:
            return True
        before, last_class = code, this_class
    return False


@kernel
def find_other_forms(data, offsets, forms, pairs, found):
    """Marks (bool[n]) the texts that may not be in form C."""
    for text in range(len(offsets) - 1):
        found[text] = _is_abnormal(data, offsets[text], offsets[text + 1], forms, pairs, NOT_IN_FORM)


@kernel
def find_abnormal(data, offsets, forms, pairs, abnormal, spans):
    """Marks (bool[n]) the texts that have to be changed inside; of every text the span (int64 (n, 2), in bytes of
    `data`) without line breaks before and white space after it.
    """
    for text in range(len(offsets) - 1):
        begin, end = offsets[text], offsets[text + 1]
        abnormal[text] = _is_abnormal(data, begin, end, forms, pairs, NOT_IN_FORM | CONTROL)
        while end > begin:
            at = end - 1
            while at > begin and at > end - 4 and data[at] & 0xC0 == 0x80:
                at -= 1
            if forms[decode(data, at, end)[0]] & SPACE == 0:
                break
            end = at
        while begin < end and data[begin] == 10:
            begin += 1
        spans[text, 0], spans[text, 1] = begin, end


@kernel
def copy_spans(data, spans, out):
    """Copies spans of bytes one after the other."""
    filled = np.uint64(0)
    for span in range(len(spans)):
        for at in range(np.uint64(spans[span, 0]), np.uint64(spans[span, 1])):
            out[filled] = data[at]
            filled += np.uint64(1)
