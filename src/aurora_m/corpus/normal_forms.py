"""Whether a text is in Unicode's normal form C (NFC), and the tables by which that is seen without making the form.

Those who make it have editions of Unicode of their own. So what Python's edition does not know counts as what may
change; characters that both know keep their form in all later editions (Unicode's policy of stable normalisation).
"""

import unicodedata
from functools import cache

import numpy as np
import pyarrow as pa

from . import normal_kernels as kernels
from .segments import read_only, text_buffers

_BYTE_ORDER_MARK = 0xFEFF
_CODES = (*range(0x40000), *range(0xE0000, 0xE0200))
_UNASSIGNED = (range(0x40000, 0xE0000), range(0xE0200, 0xF0000))  # planes 15 and 16 are for private use
_JOINING_HANGUL = (range(0x1161, 0x1176), range(0x11A8, 0x11C3))  # vowels and final consonants


def is_nfc(texts: pa.LargeStringArray) -> np.ndarray:
    """bool[texts]: True where a text surely is in normal form C, whoever makes it; False where it may not be."""
    data, offsets = text_buffers(texts)
    others = np.empty(len(texts), np.bool_)
    kernels.find_other_forms(data, offsets, *unicode_forms(), others)
    return ~others


@cache
def unicode_forms() -> tuple[np.ndarray, np.ndarray]:
    """What the kernels must know, from Python's `unicodedata`.

    Returns:
        of every code point its combining class, and the bits of `normal_kernels`: uint16;
        the pairs of code points that compose to another, sorted: uint64, the first of a pair above the second.
    """
    forms = np.zeros(0x110000, np.uint16)
    pairs = []
    for code in _CODES:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cn":
            forms[code] |= kernels.NOT_IN_FORM
            continue
        forms[code] |= unicodedata.combining(character)
        if character.isspace():
            forms[code] |= kernels.SPACE
        if (category == "Cc" and character not in "\t\n") or code == _BYTE_ORDER_MARK:
            forms[code] |= kernels.CONTROL
        parts = unicodedata.decomposition(character)
        if not parts or parts.startswith("<"):
            continue
        if unicodedata.normalize("NFC", character) != character:
            forms[code] |= kernels.NOT_IN_FORM
        else:
            first, second = (int(part, 16) for part in parts.split())
            pairs.append(first << 32 | second)
            forms[second] |= kernels.COMPOSES
    for codes in (*_UNASSIGNED, *_JOINING_HANGUL):
        forms[codes.start : codes.stop] |= kernels.NOT_IN_FORM
    return read_only(forms), read_only(np.array(sorted(pairs), np.uint64))
