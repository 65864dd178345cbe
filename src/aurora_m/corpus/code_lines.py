"""Is a text a program? Lines are told apart by their endings, operators, keywords and indentation, in compiled code.

What stands in fenced code counts for nothing: technical pages are full of it, and they are text. So do comments and
lines that say little. What is left are lines of code and lines of prose; a text that is mostly the former is code.
"""

import numpy as np
import pyarrow as pa

from ..workspace import kernel
from .code_language import statement_words
from .kernels import body_begins
from .segments import text_buffers

CODE_SHARE = 0.7
FEWEST_LINES = 5
"""Lines of code below which a text is taken for what it says it is."""

_STATEMENTS = statement_words()
_WORDS = (
    np.frombuffer("".join(_STATEMENTS).encode(), np.uint8).copy(),
    np.cumsum([0, *(len(word) for word in _STATEMENTS)]).astype(np.int64),
)
NEUTRAL, CODE, PROSE = 0, 1, 2
_MOST_LINES = 200
_OTHER, _LETTER, _FOREIGN, _SIGN = range(4)
_KINDS = np.zeros(256, np.uint8)
_KINDS[[*range(97, 123), *range(65, 91), 95]] = _LETTER
_KINDS[128:] = _FOREIGN
_KINDS[[*b"(=-:&["]] = _SIGN


@kernel
def _is_letter(byte):
    return 97 <= byte <= 122 or 65 <= byte <= 90 or byte == 95


@kernel
def _begins_statement(data, begin, end, letters, bounds):
    """Whether the first word of a line is one of the listed ones."""
    stop = begin
    while stop < end and 97 <= data[stop] <= 122:
        stop += 1
    if stop == begin or (stop < end and data[stop] != 32 and _is_letter(data[stop])):
        return False
    for word in range(len(bounds) - 1):
        length = bounds[word + 1] - bounds[word]
        if length == stop - begin:
            same = True
            for i in range(length):
                if data[begin + i] != letters[bounds[word] + i]:
                    same = False
                    break
            if same:
                return True
    return False


@kernel
def line_kind(data, begin, end, indent, letters, bounds):
    """NEUTRAL, CODE or PROSE for a line without outer spaces, indented by so many columns."""
    length = end - begin
    first, last = data[begin], data[end - 1]
    if length <= 2:  # closing brackets
        return CODE if last == 125 or last == 123 or (last == 59 and length == 2) else NEUTRAL
    if first >= 0x80:
        return PROSE
    words = foreign = operators = calls = 0
    in_word = False
    for i in range(np.uint64(begin), np.uint64(end)):
        byte = data[i]
        kind = _KINDS[byte]
        if _LETTER <= kind <= _FOREIGN:
            words += not in_word
            foreign += kind == _FOREIGN
            in_word = True
            continue
        in_word = False
        if kind == _OTHER:
            continue
        following = data[i + np.uint64(1)] if i + np.uint64(1) < np.uint64(end) else np.uint8(10)
        before = data[i - np.uint64(1)] if i > np.uint64(begin) else np.uint8(10)
        if byte == 40:  # f(
            calls += _is_letter(before) or 48 <= before <= 57 or before == 62
        elif byte == 61:  # =
            if following == 61 or following == 62 or before == 33 or before == 43 or before == 45 or before == 58:
                operators += 2
            elif before == 32 and following == 32:
                operators += 1
        elif byte == 91:  # a[b
            operators += _is_letter(before) and _is_letter(following) and words < 12
        elif following == (62 if byte == 45 else byte):  # -> :: &&
            operators += 2
    if foreign * 4 > length:
        return PROSE
    if first == 35 or first == 42 or first == 45 or first == 62 or first == 124 or first == 33 or first == 91:
        # Headings, list items, quotes, tables, images; in code: comments, pointers, attributes.
        if first == 35 and (_begins_statement(data, begin + 1, end, letters, bounds) or data[begin + 1] == 33):
            return CODE  # of the preprocessor, or #!
        if first == 35 and data[begin + 1] == 91:
            return CODE
        return PROSE if words >= 4 and first != 35 and first != 42 else NEUTRAL
    if first == 58 and words <= 12:  # fields of reStructuredText
        return NEUTRAL
    if first == 64 and words <= 6:  # annotations
        return CODE
    if first == 60:  # mark-up is neither
        return NEUTRAL
    sentence = words >= 8 and (last == 46 or last == 58 or last == 44 or last >= 0x80)
    if last == 59 or last == 123 or last == 125:
        return CODE
    signs = calls > 0 or operators > 0 or last == 58 or last == 41 or words <= 4
    if signs and not sentence and _begins_statement(data, begin, end, letters, bounds):
        return CODE
    if operators >= 2 and not sentence:
        return CODE
    if operators and words <= 12 and not sentence:
        return CODE
    if calls and last != 46 and (last == 41 or last == 44 or last == 40 or last == 58 or last == 34) and words <= 12:
        return CODE
    if last == 58 and first != 34 and words >= 2 and (calls or operators) and words <= 14:
        return CODE
    if indent >= 4 and words <= 6 and (last == 44 or last == 40 or last == 91 or last == 41 or last == 93):
        return CODE
    if words < 3 or (indent >= 4 and not sentence):
        return NEUTRAL
    return PROSE


@kernel
def opens_fence(data, begin, end):
    """How many backticks or tildes a line begins with, if it can open a fence; 0 otherwise."""
    mark = data[begin]
    if mark != 96 and mark != 126:
        return 0
    i = begin
    while i < end and data[i] == mark:
        i += 1
    run = i - begin
    if run < 3:
        return 0
    while i < end:
        if mark == 96 and data[i] == 96:  # ```code``` in a line
            return 0
        i += 1
    return run


@kernel
def closes_fence(data, begin, end, mark, run):
    """Whether a line is a fence of at least so many marks and nothing else."""
    i = begin
    while i < end and data[i] == mark:
        i += 1
    return i == end and i - begin >= run


@kernel
def _quotes(data, begin, end):
    """How often three quotation marks stand in a line."""
    found, i = 0, begin
    while i + 2 < end:
        if (data[i] == 34 or data[i] == 39) and data[i + 1] == data[i] and data[i + 2] == data[i]:
            found += 1
            i += 3
        else:
            i += 1
    return found


@kernel
def count_lines(data, starts, ends, is_whole, letters, bounds, counts):
    """Lines of code and of prose of every span, int64 (n, 2): texts (with YAML headers), or parts of them.

    After _MOST_LINES of them the rest is taken to be like them.
    """
    for span in range(len(starts)):
        end = ends[span]
        i = body_begins(data, starts[span], end) if is_whole else starts[span]
        run, mark = 0, np.uint8(0)
        literal = -1  # the indentation under which a literal block of reStructuredText lies
        in_comment = in_string = False
        code = prose = 0
        while i < end and code + prose < _MOST_LINES:
            begin = i
            while i < end and data[i] != 10:
                i += 1
            stop = i
            i += 1
            indent = 0
            while begin < stop and (data[begin] == 32 or data[begin] == 9):
                indent += 4 if data[begin] == 9 else 1
                begin += 1
            while stop > begin and (data[stop - 1] == 32 or data[stop - 1] == 9 or data[stop - 1] == 13):
                stop -= 1
            if begin == stop:
                continue
            if run:
                if closes_fence(data, begin, stop, mark, run):
                    run = 0
                continue
            run = opens_fence(data, begin, stop)
            if run:
                mark = data[begin]
                continue
            if literal >= 0:
                if indent > literal:
                    continue
                literal = -1
            if data[begin] == 46 and begin + 2 < stop and data[begin + 1] == 46 and data[begin + 2] == 32:  # ..
                literal = indent
                continue
            if stop - begin >= 3 and data[stop - 1] == 58 and data[stop - 2] == 58:
                literal = indent
                prose += 1
                continue
            if in_comment or (data[begin] == 47 and begin + 1 < stop and data[begin + 1] == 42):  # /*
                in_comment = not (data[stop - 2] == 42 and data[stop - 1] == 47 and stop - begin > 2)
                code += 1
                continue
            if data[begin] == 47 and begin + 1 < stop and data[begin + 1] == 47:  # //
                code += 1
                continue
            if _quotes(data, begin, stop) % 2:
                in_string = not in_string
                continue
            if in_string:
                continue
            kind = line_kind(data, begin, stop, indent, letters, bounds)
            code += kind == CODE
            prose += kind == PROSE
        counts[span, 0], counts[span, 1] = code, prose


def is_code(texts: pa.LargeStringArray) -> np.ndarray:
    """Which texts are programs rather than text, bool[n]."""
    data, offsets = text_buffers(texts)
    return spans_are_code(data, offsets[:-1], offsets[1:], whole=True)


def spans_are_code(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, *, whole: bool = False, fewest: int = FEWEST_LINES
) -> np.ndarray:
    """Which parts of a buffer of texts are code, bool[n]; `whole` where they are texts with their headers."""
    counts = np.zeros((len(starts), 2), np.int64)
    count_lines(data, np.ascontiguousarray(starts), np.ascontiguousarray(ends), whole, *_WORDS, counts)
    code, prose = counts[:, 0], counts[:, 1]
    return (code >= fewest) & (code > CODE_SHARE * (code + prose))
