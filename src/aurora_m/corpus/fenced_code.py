"""The words of Markdown that stand outside fenced code.

A fence is three backticks or tildes at the beginning of a line, and the next one closes it.
"""

import numpy as np
import pyarrow as pa

from ..workspace import kernel
from .kernels import BEGINS_PARAGRAPH, fence_begins, is_rule
from .segments import Segments, text_buffers


def find_stretches(texts: pa.LargeStringArray, segments: Segments) -> tuple[np.ndarray, np.ndarray]:
    """The words of texts that stand before, between and after fenced code; all words of a text without any.

    Returns:
        stretches int64 (k, 2): the first of their words, counted in the text, and the one after the last;
        offsets int64[n + 1]: those of text i are `offsets[i]` to `offsets[i + 1]`.
    """
    data, offsets = text_buffers(texts)
    n, most = len(segments), len(segments) + len(segments.line_hash)
    stretches, stretch_offsets = np.empty((most, 2), np.int64), np.zeros(n + 1, np.int64)
    found = gather_stretches(
        data, offsets, segments.word_offsets, segments.word_start, segments.line_offsets, segments.line_start,
        segments.line_end, segments.line_characters, segments.line_flags, stretches, stretch_offsets,
    )  # fmt: skip
    return stretches[:found], stretch_offsets


@kernel
def gather_stretches(
    data, offsets, word_offsets, word_start, line_offsets, line_start, line_end, line_characters,
    line_flags, stretches, stretch_offsets,
):  # fmt: skip
    """Fills what `find_stretches` returns; returns how many stretches there are."""
    found = np.int64(0)
    for text in range(len(offsets) - 1):
        begin = offsets[text]
        first_word, last_word = word_offsets[text], word_offsets[text + 1]
        last_line = line_offsets[text + 1]
        word = opens = first_word
        fenced = underlines = False
        for line in range(line_offsets[text], last_line):
            underline = underlines
            underlines = False
            if not underline and fence_begins(data, begin + line_start[line], begin + line_end[line]):
                # The words of the fence itself are code as well.
                limit = line_end[line] if fenced else line_start[line]
                while word < last_word and word_start[word] < limit:
                    word += 1
                if not fenced and word > opens:
                    stretches[found, 0], stretches[found, 1] = opens - first_word, word - first_word
                    found += 1
                opens = word
                fenced = not fenced
            elif not fenced and not underline:
                underlines = is_underlined(
                    data, begin, line, last_line, line_start, line_end, line_characters, line_flags
                )
        if not fenced and last_word > opens:
            stretches[found, 0], stretches[found, 1] = opens - first_word, last_word - first_word
            found += 1
        stretch_offsets[text + 1] = found
    return found


@kernel
def is_underlined(data, begin, line, last_line, line_start, line_end, line_characters, line_flags):
    """Whether the line after this one makes a heading of it.

    Three tildes are a fence, unless they are as long as the line that they would be a heading's.
    """
    below = line + 1
    if below >= last_line or line_flags[below] & BEGINS_PARAGRAPH:
        return False
    at, end = begin + line_start[below], begin + line_end[below]
    return is_rule(data, at, end) and (data[at] != 126 or line_characters[below] >= line_characters[line])
