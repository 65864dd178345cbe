"""Compiled loops over UTF-8 buffers; the only place with byte arithmetic.

Texts come as Arrow keeps them: `data`, the bytes of all texts, and `offsets` (int64, n + 1), text i being
`data[offsets[i]:offsets[i + 1]]`. Kernels release the GIL and never read past the end of a text, whatever its bytes.
Indices of the hottest loops are unsigned: for signed ones numba asks each time whether they count from the end.
They are called from the modules beside this one, which always hand over arrays of the same types: one specialisation
each, compiled on the first call and kept in numba's cache.
"""

import numpy as np

from ..workspace import kernel
from .hashing import HASH_PRIME, HASH_START, mix, mix_step
from .unicode_tables import (
    BLOCK_BITS,
    BULLET,
    CASED,
    CLOSING,
    DIGIT,
    JOINER,
    LETTER,
    MARK,
    OPENING,
    SCRIPT_SHIFT,
    SINGLE,
    SPACE,
    TERMINAL,
)

# Columns of the counts that `segment` makes of a text. Characters are code points.
COUNTS = (
    "characters",
    "letters",  # with marks
    "digits",
    "spaces",
    "words",
    "letter_words",  # words that bear a letter
    "letter_word_characters",
    "hashes",  # runs of #
    "ellipses",
    "curly_brackets",  # opening ones
    "all_lines",  # empty ones too
    "lines",  # lines that bear a letter; the four below are among these
    "bullet_lines",
    "ellipsis_lines",
    "prose_lines",  # outside fenced code, beginning with a letter: no headings, list items, table rows
    "terminal_lines",  # prose lines that end a sentence
    "longest_line",  # characters, of all lines
)
(
    _CHARACTERS,
    _LETTERS,
    _DIGITS,
    _SPACES,
    _WORDS,
    _LETTER_WORDS,
    _LETTER_WORD_CHARACTERS,
    _HASHES,
    _ELLIPSES,
    _CURLY_BRACKETS,
    _ALL_LINES,
    _LINES,
    _BULLET_LINES,
    _ELLIPSIS_LINES,
    _PROSE_LINES,
    _TERMINAL_LINES,
    _LONGEST_LINE,
) = range(len(COUNTS))

# Bits of a line.
HAS_LETTER = 1
IS_BULLET = 2
IS_PROSE = 4
ENDS_SENTENCE = 8
ENDS_IN_ELLIPSIS = 16
BEGINS_PARAGRAPH = 32  # the line before is blank, or there is none

_BLOCK_MASK = (1 << BLOCK_BITS) - 1
_WORD_CLASSES = LETTER | MARK | DIGIT

_REPLACEMENT = 0xFFFD
_LONGEST_HEADER = 16384


@kernel
def decode(data, i, end):
    """The code point at byte i and the byte after it; a damaged byte is a replacement character of its own."""
    lead = np.int64(data[i])
    if lead < 0x80:
        return lead, i + 1
    if lead < 0xE0:
        if lead >= 0xC2 and i + 1 < end:
            return ((lead & 0x1F) << 6) | (np.int64(data[i + 1]) & 0x3F), i + 2
    elif lead < 0xF0:
        if i + 2 < end:
            return ((lead & 0x0F) << 12) | ((np.int64(data[i + 1]) & 0x3F) << 6) | (np.int64(data[i + 2]) & 0x3F), i + 3
    elif lead < 0xF5 and i + 3 < end:
        code = ((lead & 0x07) << 18) | ((np.int64(data[i + 1]) & 0x3F) << 12)
        code |= ((np.int64(data[i + 2]) & 0x3F) << 6) | (np.int64(data[i + 3]) & 0x3F)
        if code < 0x110000:
            return code, i + 4
    return np.int64(_REPLACEMENT), i + 1


@kernel
def _rule_ends(data, i, end):
    """The byte after the line of three hyphens that begins at i, or -1 where there is none."""
    if i + 3 > end or data[i] != 45 or data[i + 1] != 45 or data[i + 2] != 45:
        return -1
    i += 3
    while i < end and (data[i] == 32 or data[i] == 9 or data[i] == 13):
        i += 1
    if i == end:
        return i
    return i + 1 if data[i] == 10 else -1


@kernel
def body_begins(data, begin, end):
    """The byte after a page's YAML header (lines between two rules of three hyphens); `begin` without one."""
    i = _rule_ends(data, begin, end)
    if i < 0:
        return begin
    last = min(end, begin + _LONGEST_HEADER)
    while i < last:
        after = _rule_ends(data, i, end)
        if after >= 0:
            return after
        while i < last and data[i] != 10:
            i += 1
        i += 1
    return begin


@kernel
def fence_begins(data, i, end):
    """Whether a fence of code begins at byte i: three backticks or tildes."""
    return i + 2 < end and (data[i] == 96 or data[i] == 126) and data[i + 1] == data[i] and data[i + 2] == data[i]


@kernel
def find_words(
    data, offsets, block_of, classes, lower, counts, word_offsets, word_start, word_end, word_hash, word_characters
):
    """Words of every text after its YAML header, with bytes from the text's own start, and COUNTS of characters.

    The hash of a word is of its lower case, without joiners.
    """
    words = 0
    for text in range(len(offsets) - 1):
        begin, end = offsets[text], offsets[text + 1]
        word_offsets[text] = words
        characters = letters = digits = spaces = letter_words = letter_word_characters = 0
        hashes = ellipses = curly_brackets = 0
        in_word = single = False
        has_letter = length = word_stops = 0
        value = HASH_START
        i = body_begins(data, begin, end)
        while i <= end:
            # A line break after the last character ends the word that is open.
            code = at = np.int64(data[np.uint64(i)]) if i < end else np.int64(10)
            following = i + 1
            if code >= 0x80:
                if 0xE0 <= code < 0xF0 and i + 2 < end:  # as decode does; a call costs more than these shifts
                    second, third = np.int64(data[np.uint64(i + 1)]), np.int64(data[np.uint64(i + 2)])
                    code = ((code & 0x0F) << 12) | ((second & 0x3F) << 6) | (third & 0x3F)
                    following = i + 3
                else:
                    code, following = decode(data, i, end)
                at = (np.int64(block_of[np.uint64(code >> BLOCK_BITS)]) << BLOCK_BITS) | (code & _BLOCK_MASK)
            kind = np.int64(classes[np.uint64(at)]) & 0xFFFF
            characters += 1
            # A word ends before what is in no word, and before and after every Han or kana character.
            if in_word and (
                kind & (_WORD_CLASSES | JOINER) == 0 or kind & SINGLE or (single and kind & (LETTER | DIGIT))
            ):
                word_end[words], word_hash[words], word_characters[words] = word_stops - begin, mix(value), length
                letter_words += has_letter
                letter_word_characters += has_letter * length
                words += 1
                in_word = False
            if kind & _WORD_CLASSES:
                if not in_word:
                    in_word, single = True, kind & SINGLE != 0
                    word_start[words] = i - begin
                    has_letter = length = 0
                    value = HASH_START
                length += 1
                word_stops = following
                has_letter |= kind & LETTER
                digits += kind & DIGIT != 0
                letters += kind & DIGIT == 0
                value = (value ^ np.uint64(code + lower[np.uint64(at)])) * HASH_PRIME
                if code >= 65 and code < 0x80:
                    # The rest of a run of ASCII letters, of which none ends the word.
                    while following < end:
                        small = data[np.uint64(following)] | np.uint8(32)
                        if np.uint8(small - np.uint8(97)) >= np.uint8(26):
                            break
                        value = (value ^ np.uint64(small)) * HASH_PRIME
                        following += 1
                    run = following - i - 1
                    characters, letters, length = characters + run, letters + run, length + run
                    word_stops = following
            elif kind & SPACE:
                spaces += 1
            elif code == 35 and (i == begin or data[i - 1] != 35):
                hashes += 1
            elif code == 123:
                curly_brackets += 1
            elif code == 0x2026 or (code == 46 and _third_dot(data, i, begin)):
                ellipses += 1
            i = following
        count = counts[text]
        count[_CHARACTERS], count[_SPACES] = characters - 1, spaces - 1
        count[_LETTERS], count[_DIGITS] = letters, digits
        count[_HASHES], count[_ELLIPSES], count[_CURLY_BRACKETS] = hashes, ellipses, curly_brackets
        count[_WORDS], count[_LETTER_WORDS] = words - word_offsets[text], letter_words
        count[_LETTER_WORD_CHARACTERS] = letter_word_characters
    word_offsets[len(offsets) - 1] = words


@kernel
def find_characters(
    data, offsets, block_of, classes, lower, documents, word_offsets, word_start, word_end, begins, out
):
    """The characters (code points, uint64) of the words of every text in lower case, joiners left out.

    Text i is `documents[i]` of those whose words these are; its characters are `out[begins[i] : begins[i + 1]]`.
    """
    filled = 0
    for text in range(len(documents)):
        begins[text] = filled
        for word in range(word_offsets[documents[text]], word_offsets[documents[text] + 1]):
            i, end = offsets[text] + word_start[word], offsets[text] + word_end[word]
            while i < end:
                code, i = decode(data, i, end)
                at = (np.int64(block_of[code >> BLOCK_BITS]) << BLOCK_BITS) | (code & _BLOCK_MASK)
                if np.int64(classes[at]) & 0xFFFF & _WORD_CLASSES:
                    out[filled] = np.uint64(code + lower[at])
                    filled += 1
    begins[len(documents)] = filled


@kernel
def _third_dot(data, i, begin):
    """Whether the dot at i is the third of a row: three dots and more are one ellipsis."""
    if i - begin < 2 or data[i - 1] != 46 or data[i - 2] != 46:
        return False
    return i - begin == 2 or data[i - 3] != 46


@kernel
def _line_ends(data, begin, end):
    """Where the next line break is, or the end."""
    i, stop = np.uint64(begin), np.uint64(end)
    while i < stop and data[i] != np.uint8(10):
        i += np.uint64(1)
    return np.int64(i)


@kernel
def _characters_of(data, begin, end):
    """How many characters a span of bytes has."""
    characters = np.uint64(0)
    for i in range(np.uint64(begin), np.uint64(end)):
        characters += np.uint64(data[i] & np.uint8(0xC0) != np.uint8(0x80))
    return np.int64(characters)


@kernel
def _hash_of(data, begin, end):
    """The hash of a span of bytes: of its length, and of eight bytes at a time, little-endian, the last ones padded."""
    value = HASH_START ^ np.uint64(end - begin)
    i, stop, eight = np.uint64(begin), np.uint64(end), np.uint64(8)
    while i + eight <= stop:
        chunk = np.uint64(0)
        for byte in range(eight):
            chunk |= np.uint64(data[i + byte]) << (eight * byte)
        value = mix_step(value, chunk)
        i += eight
    if i < stop:
        chunk = np.uint64(0)
        for byte in range(stop - i):
            chunk |= np.uint64(data[i + byte]) << (eight * byte)
        value = mix_step(value, chunk)
    return mix(value)


@kernel
def find_lines(
    data, offsets, block_of, classes, counts, line_offsets, line_start, line_end, line_hash, line_characters, line_flags
):
    """Lines of every text after its YAML header that are not blank, without outer spaces, and COUNTS of lines.

    Bytes are from the text's own start. The hash of a line is of its bytes.
    """
    lines = 0
    for text in range(len(offsets) - 1):
        begin, end = offsets[text], offsets[text + 1]
        line_offsets[text] = lines
        count = counts[text]
        fenced = False
        paragraph = BEGINS_PARAGRAPH
        i = body_begins(data, begin, end)
        while i < end:
            line = i
            i = _line_ends(data, i, end)
            first, last = _trim(data, line, i, block_of, classes)
            characters = _characters_of(data, first, last)
            longest = _characters_of(data, line, first) + characters + _characters_of(data, last, i)
            count[_ALL_LINES] += 1
            count[_LONGEST_LINE] = max(count[_LONGEST_LINE], longest)
            i += 1
            if first == last:
                paragraph = BEGINS_PARAGRAPH
                continue
            line_start[lines], line_end[lines] = first - begin, last - begin
            line_hash[lines], line_characters[lines] = _hash_of(data, first, last), characters
            fenced ^= fence_begins(data, first, last)
            flags = _line_flags(data, first, last, fenced, block_of, classes)
            line_flags[lines] = flags | paragraph
            lines += 1
            paragraph = 0
            if flags & HAS_LETTER:
                count[_LINES] += 1
                count[_BULLET_LINES] += flags & IS_BULLET != 0
                count[_ELLIPSIS_LINES] += flags & ENDS_IN_ELLIPSIS != 0
                count[_PROSE_LINES] += flags & IS_PROSE != 0
                count[_TERMINAL_LINES] += flags & IS_PROSE != 0 and flags & ENDS_SENTENCE != 0
    line_offsets[len(offsets) - 1] = lines


@kernel
def class_of(code, block_of, classes):
    return np.int64(classes[(np.int64(block_of[code >> BLOCK_BITS]) << BLOCK_BITS) | (code & _BLOCK_MASK)]) & 0xFFFF


@kernel
def _character_before(data, begin, end):
    """Where the character begins whose last byte is before `end`."""
    at = end - 1
    while at > begin and at > end - 4 and data[at] & 0xC0 == 0x80:
        at -= 1
    return at


@kernel
def _trim(data, begin, end, block_of, classes):
    """A span of bytes without the white space at its ends."""
    while begin < end:
        code, following = decode(data, begin, end)
        if class_of(code, block_of, classes) & SPACE == 0:
            break
        begin = following
    while begin < end:
        at = _character_before(data, begin, end)
        if class_of(decode(data, at, end)[0], block_of, classes) & SPACE == 0:
            break
        end = at
    return begin, end


@kernel
def _line_flags(data, begin, end, fenced, block_of, classes):
    """What kind of line a trimmed, non-empty line is: the bits HAS_LETTER to ENDS_IN_ELLIPSIS."""
    flags = HAS_LETTER if _has_letter(data, begin, end, block_of, classes) else 0
    code, following = decode(data, begin, end)
    kind = class_of(code, block_of, classes)
    before_space = following < end and (data[following] == 32 or data[following] == 9)
    # A hyphen or an asterisk makes a list item only before a space: "-1" and "*bold*" do not.
    if kind & BULLET and (code >= 0x2022 or before_space):
        flags |= IS_BULLET
    if not fenced and (kind & LETTER or (kind & OPENING and not before_space)):
        flags |= IS_PROSE

    while begin < end:  # quotes, brackets and emphasis may follow the end of a sentence
        at = _character_before(data, begin, end)
        code = decode(data, at, end)[0]
        kind = class_of(code, block_of, classes)
        if kind & CLOSING == 0:
            if kind & TERMINAL:
                flags |= ENDS_SENTENCE
            if code == 0x2026 or (code == 46 and at - begin >= 2 and data[at - 1] == 46 and data[at - 2] == 46):
                flags |= ENDS_IN_ELLIPSIS
            break
        end = at
    return flags


# Kinds of phrases that `sequences.mark_phrases` finds for `judge_lines`.
JAVASCRIPT, POLICY, LOREM_IPSUM = 2, 3, 4
# Columns of `judge_lines`. All but the first are lines that bear a letter.
LINE_JUDGEMENTS = (
    "lorem_ipsum",  # how often the phrase comes
    "javascript_lines",
    "policy_lines",
    "short_lines",  # at most _SHORT_LINE characters
    "ended_lines",  # that end a sentence, prose or not
    "c4_lines",  # that C4 keeps: whole sentences, no ellipsis, three words, no script or policy, no word of 1000
    "c4_sentences",  # in the lines that C4 keeps
)
_LOREM, _JAVASCRIPT_LINES, _POLICY_LINES, _SHORT_LINES, _ENDED_LINES, _C4_LINES, _C4_SENTENCES = range(
    len(LINE_JUDGEMENTS)
)
_SHORT_LINE = 30
_FEWEST_WORDS = 3
_LONGEST_WORD = 1000


@kernel
def _sentence_ends(data, i, end, block_of, classes):
    """Whether a sentence ends in what lies between two words of a line: a mark before a space, or one not ASCII.

    A colon ends no sentence inside a line.
    """
    ended = False
    while i < end:
        code, i = decode(data, i, end)
        kind = class_of(code, block_of, classes)
        if kind & TERMINAL and code != 58 and code != 0xFF1A:
            if code >= 0x80:
                return True
            ended = True
        elif kind & CLOSING == 0:
            if kind & SPACE and ended:
                return True
            ended = False
    return False


@kernel
def judge_lines(
    data,
    offsets,
    block_of,
    classes,
    word_offsets,
    word_start,
    word_end,
    word_characters,
    word_marks,
    line_offsets,
    line_end,
    line_characters,
    line_flags,
    out,
):
    """LINE_JUDGEMENTS of every text, int64 (n, len(LINE_JUDGEMENTS)); `word_marks` has the kind of phrase (uint8)
    that begins at each word."""
    for text in range(len(offsets) - 1):
        begin = offsets[text]
        count = out[text]
        word, last_word = word_offsets[text], word_offsets[text + 1]
        for line in range(line_offsets[text], line_offsets[text + 1]):
            words = longest = 0
            sentences = 1
            javascript = policy = False
            while word < last_word and word_start[word] < line_end[line]:
                # One byte is a space, or a mark with none after it.
                if words and word_start[word] - word_end[word - 1] > 1:
                    sentences += _sentence_ends(
                        data, begin + word_end[word - 1], begin + word_start[word], block_of, classes
                    )
                longest = max(longest, word_characters[word])
                mark = word_marks[word]
                if mark:
                    javascript |= mark == JAVASCRIPT
                    policy |= mark == POLICY
                    count[_LOREM] += mark == LOREM_IPSUM
                words += 1
                word += 1
            flags = line_flags[line]
            if flags & HAS_LETTER == 0:
                continue
            ended = flags & ENDS_SENTENCE != 0
            count[_JAVASCRIPT_LINES] += javascript
            count[_POLICY_LINES] += policy
            count[_SHORT_LINES] += line_characters[line] <= _SHORT_LINE
            count[_ENDED_LINES] += ended
            whole = ended and flags & ENDS_IN_ELLIPSIS == 0 and words >= _FEWEST_WORDS and longest <= _LONGEST_WORD
            if whole and not (javascript or policy):
                count[_C4_LINES] += 1
                count[_C4_SENTENCES] += sentences


@kernel
def content_hash(data, offsets, block_of, classes, lower, out):
    """64-bit hash of every text in lower case, runs of white space as one space, none at the ends."""
    for text in range(len(offsets) - 1):
        i, end = offsets[text], offsets[text + 1]
        value = HASH_START
        pending = False
        started = False
        while i < end:
            code = np.int64(data[np.uint64(i)])
            if started and not pending:
                # Most of a text in one branch that is seldom guessed wrong: ASCII, and single spaces within it.
                follows = np.uint8(data[np.uint64(i + 1)]) if i + 1 < end else np.uint8(0)
                printed = np.uint8(code - 33) < np.uint8(94)
                if printed | ((code == 32) & (np.uint8(follows - np.uint8(33)) < np.uint8(94))):
                    small = np.uint64(code) | (np.uint64(np.uint8(code - 65) < np.uint8(26)) << np.uint64(5))
                    value = (value ^ small) * HASH_PRIME
                    i += 1
                    continue
            if code < 0x80:
                i += 1
            elif 0xE0 <= code < 0xF0 and i + 2 < end:
                code = ((code & 0x0F) << 12) | ((np.int64(data[i + 1]) & 0x3F) << 6) | (np.int64(data[i + 2]) & 0x3F)
                i += 3
            else:
                code, i = decode(data, i, end)
            at = (np.int64(block_of[np.uint64(code >> BLOCK_BITS)]) << BLOCK_BITS) | (code & _BLOCK_MASK)
            kind = np.int64(classes[np.uint64(at)]) & 0xFFFF
            if kind & SPACE:
                pending = started
                continue
            if pending:
                value = (value ^ np.uint64(32)) * HASH_PRIME
                pending = False
            started = True
            if kind & CASED:
                code += lower[np.uint64(at)]
            value = (value ^ np.uint64(code)) * HASH_PRIME
        out[text] = mix(value)


@kernel
def _skip_to(data, i, end, limit, wanted):
    """The byte after the next `wanted` of this line, within `limit` bytes; i itself where there is none."""
    for at in range(i, min(end, i + limit)):
        if data[at] == 10:
            break
        if data[at] == wanted:
            return at + 1
    return i


@kernel
def copy_prose(data, i, end, skip_code, block_of, classes, out, scripts):
    """Copies letters and marks, other characters between them as one space; counts letters by script.

    With `skip_code`: without fenced and inline code, link targets, tags and addresses. Returns the bytes written.
    """
    written = np.int64(0)
    last_gap = np.int64(0)
    fenced = False
    line_begins = True
    gap = False
    script, letters = np.int64(0), np.int64(0)  # a run of letters of one script
    while i < end:
        if line_begins and skip_code:
            line_begins = False
            at = i
            while at < end and data[at] == 32:
                at += 1
            if fence_begins(data, at, end):
                fenced = not fenced
                while i < end and data[i] != 10:
                    i += 1
                continue
        code, following = np.int64(data[np.uint64(i)]), i + 1
        at = code  # the first block is that of ASCII
        if code >= 0x80:
            if 0xE0 <= code < 0xF0 and i + 2 < end:
                code = ((code & 0x0F) << 12) | ((np.int64(data[i + 1]) & 0x3F) << 6) | (np.int64(data[i + 2]) & 0x3F)
                following = i + 3
            else:
                code, following = decode(data, i, end)
            at = (np.int64(block_of[np.uint64(code >> BLOCK_BITS)]) << BLOCK_BITS) | (code & _BLOCK_MASK)
        elif code == 10:
            line_begins = True
        entry = np.int64(classes[np.uint64(at)])
        if entry & (LETTER | MARK | JOINER) and not fenced:
            if gap and written > 0:
                out[np.uint64(written)] = 32
                written += 1
                last_gap = written
            gap = False
            if entry & LETTER:
                if entry >> SCRIPT_SHIFT != script:
                    scripts[script] += letters
                    script, letters = entry >> SCRIPT_SHIFT, np.int64(0)
                letters += 1
            out[np.uint64(written)] = data[np.uint64(i)]
            written, i = written + 1, i + 1
            while i < following:
                out[np.uint64(written)] = data[np.uint64(i)]
                written, i = written + 1, i + 1
            if code < 0x80:
                # The rest of a word in ASCII, whose letters are of one script.
                while i < end and np.uint8((data[np.uint64(i)] | np.uint8(32)) - np.uint8(97)) < np.uint8(26):
                    out[np.uint64(written)] = data[np.uint64(i)]
                    written, i = written + 1, i + 1
                    letters += 1
            continue
        gap = True
        if fenced and code != 10:
            while following < end and data[np.uint64(following)] != 10:
                following += 1
        if skip_code and not fenced:
            if code == 96:
                following = _skip_to(data, following, end, 300, 96)
            elif code == 60 and following < end and (data[following] >= 97 or data[following] == 47):
                following = _skip_to(data, following, end, 300, 62)
            elif code == 93 and following < end and data[following] == 40:
                following = _skip_to(data, following, end, 1000, 41)
            elif code == 58 and following + 1 < end and data[following] == 47 and data[following + 1] == 47:
                written = last_gap
                while following < end and 32 < data[following] < 128 and data[following] != 41:
                    following += 1
        i = following
    scripts[script] += letters
    return written


@kernel
def sample_prose(data, offsets, block_of, classes, enough, scratch, scripts, most, size, samples, sample_offsets):
    """Up to `most` samples of about `size` bytes from the prose of every text, evenly spread, cut between characters.

    Where code, addresses and headers leave fewer than `enough` letters, they count as prose. `scripts` (n, scripts)
    becomes the histogram of the letters. Samples of text i are number i * most to (i + 1) * most - 1, empty ones last.
    """
    filled = 0
    for text in range(len(offsets) - 1):
        begin, end = offsets[text], offsets[text + 1]
        body = body_begins(data, begin, end)
        length = copy_prose(data, body, end, True, block_of, classes, scratch, scripts[text])
        if scripts[text].sum() < enough:
            scripts[text, :] = 0
            length = copy_prose(data, begin, end, False, block_of, classes, scratch, scripts[text])
        wanted = min(most, (length + size - 1) // size)
        for number in range(most):
            if number < wanted:
                at = 0 if wanted == 1 else number * (length - size) // (wanted - 1)
                stop = min(length, at + size)
                while at < stop and scratch[at] & 0xC0 == 0x80:
                    at += 1
                while stop < length and scratch[stop] & 0xC0 == 0x80:
                    stop += 1
                while at < stop:
                    samples[filled] = scratch[at]
                    filled += 1
                    at += 1
            sample_offsets[text * most + number + 1] = filled


@kernel
def light_words(data, offsets, block_of, classes, word_offsets, word_start, out):
    """1 for every word that is a single Han or kana character or begins with a digit, 0 for other words."""
    for text in range(len(offsets) - 1):
        for word in range(word_offsets[text], word_offsets[text + 1]):
            at = offsets[text] + word_start[word]
            if data[at] < 0x80:
                out[word] = data[at] <= 57
            else:
                out[word] = class_of(decode(data, at, offsets[text + 1])[0], block_of, classes) & (SINGLE | DIGIT) != 0


@kernel
def is_rule(data, begin, end):
    """Whether a line is what headings are underlined with: three and more of one of = - ~ ^ and nothing else."""
    first = data[begin]
    if end - begin < 3 or (first != 61 and first != 45 and first != 126 and first != 94):
        return False
    begin += 1
    while begin < end and data[begin] == first:
        begin += 1
    return begin == end


@kernel
def find_edge_lines(
    data,
    offsets,
    block_of,
    classes,
    edge,
    scratch_start,
    scratch_end,
    scratch_fenced,
    rows,
    line_start,
    line_end,
    line_hash,
):
    """Lines with a letter among the first or last `edge` lines of a text that are not blank; returns how many.

    None of fenced code, and no headings nor beginnings of quotes (# and >, or underlined): they belong to what follows.
    Starts and ends are without outer spaces, in bytes from the text's own start; hashes are those of `find_lines`. The
    scratch is for the lines of the longest text.
    """
    found = 0
    for text in range(len(offsets) - 1):
        begin, end = offsets[text], offsets[text + 1]
        lines = 0
        fenced = False
        i = body_begins(data, begin, end)
        while i < end:
            start = i
            i = _line_ends(data, i, end)
            if data[start] <= 32 or data[start] >= 0x80:
                start, stop = _trim(data, start, i, block_of, classes)
                if start == stop:
                    i += 1
                    continue
            fence = fence_begins(data, start, i)
            fenced ^= fence
            scratch_start[lines], scratch_end[lines], scratch_fenced[lines] = start, i, fenced or fence
            lines += 1
            i += 1
        for line in range(lines):
            if line >= edge and line < lines - edge:
                continue
            start = np.int64(scratch_start[line])
            if scratch_fenced[line] or data[start] == 35 or data[start] == 62:
                continue
            start, stop = _trim(data, start, np.int64(scratch_end[line]), block_of, classes)
            if not _has_letter(data, start, stop, block_of, classes):
                continue
            if line + 1 < lines:
                below, after = _trim(
                    data, np.int64(scratch_start[line + 1]), np.int64(scratch_end[line + 1]), block_of, classes
                )
                if is_rule(data, below, after):
                    continue
            rows[found], line_start[found], line_end[found] = text, start - begin, stop - begin
            line_hash[found] = _hash_of(data, start, stop)
            found += 1
    return found


@kernel
def _has_letter(data, i, end, block_of, classes):
    while i < end:
        code, i = decode(data, i, end)
        if class_of(code, block_of, classes) & LETTER:
            return True
    return False


@kernel
def copy_without_lines(data, offsets, rows, line_start, out, out_offsets):
    """Copies every text without the lines that begin at `line_start` of text `rows`, both in order; where one goes,
    line breaks before and white space after the text go, too."""
    filled = np.int64(0)
    line = 0
    for text in range(len(offsets) - 1):
        begin, end = offsets[text], offsets[text + 1]
        at, start = begin, filled
        changed = False
        while line < len(rows) and rows[line] == text:
            changed = True
            stop = begin + line_start[line]
            while stop > at and data[stop - 1] != 10:
                stop -= 1
            while at < stop:
                if filled > start or data[at] != 10:
                    out[filled] = data[at]
                    filled += 1
                at += 1
            while at < end and data[at] != 10:
                at += 1
            at += 1
            line += 1
        while changed and filled == start and at < end and data[at] == 10:
            at += 1
        while at < end:
            out[filled] = data[at]
            filled += 1
            at += 1
        while changed and filled > start and (out[filled - 1] == 10 or out[filled - 1] == 32 or out[filled - 1] == 9):
            filled -= 1
        out_offsets[text + 1] = filled
