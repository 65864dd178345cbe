"""Lines that may hold personal data, and authors named in page headers, in one reading of a batch.

Regular expressions with look-around read a hundred times slower than compiled loops; so these mark the few lines that
bear a trace of something (a bit for each way to begin), and only these are read by `privacy.py`. A trace may be false;
it is never missing where one of the rules of `personal_data.py` matches.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..workspace import kernel
from .kernels import body_begins, decode
from .segments import text_buffers

# What a line bears.
AT = 1  # local@host.xy
QUAD = 2  # four numbers with dots between
IPV6 = 4  # a group of four hexadecimal digits that begins with 2 or 3, a colon, and more
IBAN = 8  # two capitals, two digits, and at least eleven capitals and digits, spaces and hyphens between
MIXED = 16  # a word of ten or eleven letters and digits, with at least four digits in a row
NUMBER = (
    32  # at least eight digits of any script with at most three spaces, dots, hyphens, brackets between two; alone,
)
# not in a word, if nothing is between them; and no date written 2021-08-02
LONG_NUMBER = 64  # the same with at least thirteen

_MOST_BETWEEN = 3
_NUMBER_DIGITS, _LONG_NUMBER_DIGITS = 8, 13
_MIXED_DIGITS, _MIXED_SHORTEST, _MIXED_LONGEST = 4, 10, 11
_IBAN_REST = 11
_LONGEST_HOST = 600

# Roles of a byte: nothing, the end of a line, @, an ASCII digit, the first byte of a character that may be a digit.
_PLAIN, _BREAK, _AT, _DIGIT, _LEAD = range(5)
_PLANES = 0x20000
_ROLES = np.zeros(256, np.uint8)
_ROLES[10], _ROLES[64], _ROLES[48:58] = _BREAK, _AT, _DIGIT
_ROLES[list(b"\xd9\xdb\xdf\xe0\xe1\xea\xef\xf0")] = _LEAD
_ROLES.flags.writeable = False


@cache
def _decimals() -> np.ndarray:
    """For every code point of the first two planes whether it is a digit, of whatever script; there are none beyond."""
    return np.array([chr(code).isdecimal() for code in range(_PLANES)])


class Suspects(NamedTuple):
    """Lines with traces, and authors; in the order of the texts, bytes from the start of the column's buffer."""

    line_text: np.ndarray
    """int32: number of the text."""
    line_start: np.ndarray
    line_end: np.ndarray
    line_traces: np.ndarray
    author_text: np.ndarray
    author_start: np.ndarray
    author_end: np.ndarray


def find_suspects(texts: pa.LargeStringArray, author_fields: tuple[str, ...]) -> Suspects:
    """Reads a batch.

    Args:
        texts: the batch; nulls count as empty.
        author_fields: names of header fields whose value is a person, lower case; none: headers are lines as others.
    """
    data, offsets = text_buffers(texts)
    fields = np.frombuffer("".join(f"{name}\n" for name in author_fields).encode(), np.uint8)
    # The shortest trace is a@b.cd, the shortest header field with a value as long, each with a line break.
    most = int(offsets[-1] - offsets[0]) // 6 + 1
    line_text, line_start, line_end = (np.empty(most, dtype) for dtype in (np.int32, np.int64, np.int64))
    author_text, author_start, author_end = (np.empty(most, dtype) for dtype in (np.int32, np.int64, np.int64))
    line_traces, sizes = np.empty(most, np.uint8), np.zeros(2, np.int64)
    _find(
        data, offsets, _ROLES, _decimals(), fields,
        line_text, line_start, line_end, line_traces, author_text, author_start, author_end, sizes,
    )  # fmt: skip
    lines, authors = sizes.tolist()
    return Suspects(
        line_text[:lines], line_start[:lines], line_end[:lines], line_traces[:lines],
        author_text[:authors], author_start[:authors], author_end[:authors],
    )  # fmt: skip


@kernel
def _find(
    data, offsets, roles, decimals, fields, line_text, line_start, line_end, line_traces,
    author_text, author_start, author_end, sizes
):  # fmt: skip
    lines = authors = 0
    for text in range(len(offsets) - 1):
        begin, end = offsets[text], offsets[text + 1]
        body = body_begins(data, begin, end) if len(fields) else begin
        i = begin
        while i < end:
            line = i
            if i < body:
                start, stop = _author(data, i, end, fields)
                if start < stop:
                    author_text[authors], author_start[authors], author_end[authors] = text, start, stop
                    authors += 1
                    while i < end and data[i] != 10:
                        i += 1
                    i += 1
                    continue
            traces = 0
            counted = i
            while i < end:
                role = roles[data[i]]
                if role == _PLAIN:
                    i += 1
                    continue
                if role == _BREAK:
                    break
                if role == _AT:
                    traces |= _trace_of_at(data, i, begin, end)
                    i += 1
                    continue
                following = i + 1
                in_word = False
                if role == _DIGIT:
                    while following < end and 48 <= data[following] < 58:
                        following += 1
                    traces |= _traces_of_digits(data, i, following, begin, end)
                    in_word = _is_of_word(data, i - 1, begin, end) or _is_of_word(data, following, begin, end)
                else:
                    if 0xE0 <= data[i] < 0xF0 and i + 2 < end:
                        code = (np.int64(data[i]) & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6
                        code, following = code | (np.int64(data[i + 2]) & 0x3F), i + 3
                    else:
                        code, following = decode(data, i, end)
                    if not _is_digit(code, decimals):
                        i = following
                        continue
                if i >= counted:
                    counted, digits = _count_digits(data, i, end, decimals)
                    plain = digits == following - i and in_word
                    plain |= digits == _NUMBER_DIGITS and _is_date(data, i, end)
                    if digits >= _NUMBER_DIGITS and not plain:
                        traces |= NUMBER
                        if digits >= _LONG_NUMBER_DIGITS:
                            traces |= LONG_NUMBER
                i = following
            if traces:
                line_text[lines], line_start[lines], line_end[lines], line_traces[lines] = text, line, i, traces
                lines += 1
            i += 1
    sizes[0], sizes[1] = lines, authors


@kernel
def _author(data, i, end, fields):
    """Where the value begins and ends if the line at i is `<field>: value`; an empty span if not.

    Of no interest are empty quotes, and <AUTHOR>, which was put there by redaction.
    """
    name = 0
    while name < len(fields):
        at, matches = i, True
        while fields[name] != 10:
            letter = data[at] if at < end else 0
            if 65 <= letter < 91:
                letter += 32
            matches &= letter == fields[name]
            at += 1
            name += 1
        name += 1
        if not matches:
            continue
        while at < end and (data[at] == 32 or data[at] == 9):
            at += 1
        if at >= end or data[at] != 58:
            continue
        at += 1
        while at < end and (data[at] == 32 or data[at] == 9):
            at += 1
        stop = at
        while stop < end and data[stop] != 10:
            stop += 1
        while stop > at and (data[stop - 1] == 32 or data[stop - 1] == 9 or data[stop - 1] == 13):
            stop -= 1
        if stop - at >= 2 and data[at] == data[at + 1] and (data[at] == 39 or data[at] == 34):
            return at, at
        if stop - at == 8 and data[at] == 60 and data[at + 1] == 65 and data[at + 7] == 62:
            return at, at
        return at, stop
    return i, i


@kernel
def _is_digit(code, decimals):
    return code < len(decimals) and decimals[code]


@kernel
def _is_alphanumeric(byte):
    return 48 <= byte < 58 or 65 <= byte < 91 or 97 <= byte < 123


@kernel
def _is_of_word(data, i, begin, end):
    return begin <= i < end and (_is_alphanumeric(data[i]) or data[i] == 95)


@kernel
def _is_date(data, i, end):
    """Whether the digits from i are four, two and two with hyphens between, of this century or the last."""
    if i + 10 > end or data[i + 4] != 45 or data[i + 7] != 45:
        return False
    return (data[i] == 49 and data[i + 1] == 57) or (data[i] == 50 and data[i + 1] == 48)


@kernel
def _trace_of_at(data, i, begin, end):
    """AT if the @ at i stands between what addresses are made of, with a dot and two letters after it."""
    if i == begin or i + 1 >= end or not _is_alphanumeric(data[i + 1]):
        return 0
    before = data[i - 1]
    if not (_is_alphanumeric(before) or before == 46 or before == 95 or before == 37 or before == 43 or before == 45):
        return 0
    last = min(end, i + _LONGEST_HOST)
    at = i + 1
    while at < last and (_is_alphanumeric(data[at]) or data[at] == 45 or data[at] == 46):
        if data[at] == 46 and at + 2 < end and data[at + 1] >= 65 and data[at + 2] >= 65:
            return AT
        at += 1
    return 0


@kernel
def _traces_of_digits(data, i, stop, begin, end):
    """Of the ASCII digits from i to stop, which stand alone or in a word: QUAD, IPV6, IBAN, MIXED."""
    traces = 0
    count = stop - i
    if count <= 3 and stop < end and data[stop] == 46 and _is_quad(data, stop, end):
        traces |= QUAD
    if (data[i] == 50 or data[i] == 51) and _is_ipv6(data, i, end):
        traces |= IPV6
    if count >= 2 and i - begin >= 2 and 65 <= data[i - 1] < 91 and 65 <= data[i - 2] < 91:
        traces |= _trace_of_iban(data, i + 2, end)
    if count >= _MIXED_DIGITS:
        first, last = i, stop
        while first > begin and i - first <= _MIXED_LONGEST and _is_alphanumeric(data[first - 1]):
            first -= 1
        while last < end and last - stop <= _MIXED_LONGEST and _is_alphanumeric(data[last]):
            last += 1
        if count < last - first <= _MIXED_LONGEST and last - first >= _MIXED_SHORTEST:
            traces |= MIXED
    return traces


@kernel
def _is_quad(data, at, end):
    """Whether the dot at `at` and two more are each followed by at most three digits."""
    for _ in range(3):
        if at >= end or data[at] != 46:
            return False
        digits = 0
        at += 1
        while at < end and 48 <= data[at] < 58:
            digits += 1
            at += 1
        if digits == 0 or digits > 3:
            return False
    return True


@kernel
def _is_hexadecimal(byte):
    return 48 <= byte < 58 or 65 <= byte < 71 or 97 <= byte < 103


@kernel
def _is_ipv6(data, i, end):
    if i + 6 >= end or data[i + 4] != 58:
        return False
    for at in range(i + 1, i + 4):
        if not _is_hexadecimal(data[at]):
            return False
    return (_is_hexadecimal(data[i + 5]) or data[i + 5] == 58) and (_is_hexadecimal(data[i + 6]) or data[i + 6] == 58)


@kernel
def _trace_of_iban(data, at, end):
    """IBAN if enough capitals and digits follow, with at most one space or hyphen between two of them."""
    rest = 0
    while at < end:
        if 48 <= data[at] < 58 or 65 <= data[at] < 91:
            rest += 1
            if rest == _IBAN_REST:
                return IBAN
        elif (data[at] != 32 and data[at] != 45) or data[at - 1] == 32 or data[at - 1] == 45:
            return 0
        at += 1
    return 0


@kernel
def _is_separator(code):
    """Space, dot, hyphen, plus, brackets; no-break space, dashes, minus, and those of full width."""
    if code < 0x80:
        return code == 32 or 40 <= code <= 41 or code == 43 or 45 <= code <= 46
    if 0x2010 <= code <= 0x2015 or code == 0xA0 or code == 0x2212:
        return True
    return code == 0x3000 or code == 0xFF08 or code == 0xFF09 or code == 0xFF0D or code == 0xFF0E


@kernel
def _count_digits(data, i, end, decimals):
    """How many digits the number has that begins at i, and where it ends."""
    digits = between = 0
    while i < end:
        if 48 <= data[i] < 58:
            code, following = np.int64(data[i]), i + 1
            digits += 1
            between = 0
        else:
            code, following = decode(data, i, end)
            if code >= 0x80 and _is_digit(code, decimals):
                digits += 1
                between = 0
            elif _is_separator(code) and between < _MOST_BETWEEN:
                between += 1
            else:
                break
        i = following
    return i, digits
