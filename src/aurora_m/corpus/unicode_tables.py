"""What the compiled loops must know about every code point: its class, its script, its lower case.

Built once per process from Python's own `unicodedata` (about 0.1 s) into two-stage tables: `block_of[code >> 7]` names
a block of 128 entries, equal blocks are stored once, so that the whole of Unicode fits into the processor's cache.
"""

import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np

# Class bits, the low 16 bits of an entry of `UnicodeTables.classes`. The script's number is in the bits above.
LETTER = 1
MARK = 2
DIGIT = 4
SPACE = 8
SINGLE = 16  # Han and kana: every character is a word of its own
JOINER = 32  # zero-width joiners and the soft hyphen: inside a word they neither end it nor count
TERMINAL = 64  # ends a sentence
CLOSING = 128  # quotes, brackets and emphasis that may follow the end of a sentence
BULLET = 256
CASED = 512  # its lower case is another code point
OPENING = 1024  # quotes, brackets and emphasis that a line of prose may begin with
SCRIPT_SHIFT = 16
BLOCK_BITS = 7

_CODE_POINTS = 0x110000
# Planes 4 to 13 are unassigned; 15 and 16 are for private use. Only the tags and variation selectors lie between.
_CODES = np.concatenate([np.arange(0x40000), np.arange(0xE0000, 0xE0200)])

# Letters of a script lie in a few blocks; whatever is not a letter or mark there has no script here. Unicode's
# Scripts.txt is not part of Python; these ranges follow it for the letters of the scripts in wide use.
_SCRIPT_RANGES = {
    "Latin": "0041-005A 0061-007A 00AA 00BA 00C0-024F 0250-02B8 1D00-1D25 1D2C-1D5C 1D62-1D65 1D6B-1D77 1D79-1DBE "
    "1E00-1EFF 2071 207F 2090-209C 2C60-2C7F A722-A787 A78B-A7FF AB30-AB64 FB00-FB06 FF21-FF3A FF41-FF5A",
    "Greek": "0370-03FF 1F00-1FFF",
    "Cyrillic": "0400-052F 1C80-1C8F 1D2B 1D78 2DE0-2DFF A640-A69F",
    "Armenian": "0530-058F FB13-FB17",
    "Hebrew": "0590-05FF FB1D-FB4F",
    "Arabic": "0600-06FF 0750-077F 0870-08FF FB50-FDFF FE70-FEFC",
    "Devanagari": "0900-097F A8E0-A8FF 11B00-11B5F",
    "Bengali": "0980-09FF",
    "Gurmukhi": "0A00-0A7F",
    "Gujarati": "0A80-0AFF",
    "Oriya": "0B00-0B7F",
    "Tamil": "0B80-0BFF 11FC0-11FFF",
    "Telugu": "0C00-0C7F",
    "Kannada": "0C80-0CFF",
    "Malayalam": "0D00-0D7F",
    "Sinhala": "0D80-0DFF",
    "Thai": "0E00-0E7F",
    "Lao": "0E80-0EFF",
    "Tibetan": "0F00-0FFF",
    "Myanmar": "1000-109F A9E0-A9FF AA60-AA7F",
    "Georgian": "10A0-10FF 1C90-1CBF 2D00-2D2F",
    "Hangul": "1100-11FF 3131-318E A960-A97F AC00-D7FF FFA0-FFDC",
    "Ethiopic": "1200-139F 2D80-2DDF AB01-AB2F",
    "Khmer": "1780-17FF",
    "Mongolian": "1800-18AF",
    "Han": "3005-3007 3021-3029 3038-303C 3400-4DBF 4E00-9FFF F900-FAFF 20000-2FA1F 30000-323AF",
    "Hiragana": "3041-3096 309D-309F 1B001-1B11F 1B132 1B150-1B152",
    "Katakana": "30A1-30FA 30FC-30FF 31F0-31FF FF66-FF9F 1AFF0-1AFFF 1B000 1B120-1B122 1B155 1B164-1B167",
}
SCRIPTS = ("none", *_SCRIPT_RANGES)
_SINGLE_SCRIPTS = ("Han", "Hiragana", "Katakana")

# A colon is here because technical prose ends the sentence before a list or an example with one.
_TERMINAL = ".!?…:。｡．！？：।॥؟۔‽⁇⁈⁉։።។"
_CLOSING = "\"'*_`~)]}>»›”’」』）］】〉》"
_OPENING = "\"'*_(（「『【《〈“‘„«‹¡¿"
_BULLETS = "-*+•‣⁃∙◦●○■□▪▫◆◇►▶・"
_JOINERS = "\u00ad\u200c\u200d\u2060"
_LISTED = ((_TERMINAL, TERMINAL), (_CLOSING, CLOSING), (_OPENING, OPENING), (_BULLETS, BULLET), (_JOINERS, JOINER))


class UnicodeTables(NamedTuple):
    """`classes` (uint32: class bits and script) and `lower` (int32: difference to the lower case) by block."""

    block_of: np.ndarray
    classes: np.ndarray
    lower: np.ndarray


@cache
def unicode_tables() -> UnicodeTables:
    """The tables, built on first use. All arrays are read-only."""
    characters = "".join(map(chr, _CODES.tolist()))
    lower = _lower_differences(characters)
    pairs = np.stack([_classes(characters, lower).view(np.int32), lower], axis=1).reshape(-1, 2 << BLOCK_BITS)
    numbers: dict[bytes, int] = {}
    block_of = np.array([numbers.setdefault(block.tobytes(), len(numbers)) for block in pairs], np.uint16)
    blocks = np.frombuffer(b"".join(numbers), np.int32).reshape(-1, 2)
    classes, differences = np.ascontiguousarray(blocks[:, 0]).view(np.uint32), np.ascontiguousarray(blocks[:, 1])
    for table in (block_of, classes, differences):
        table.flags.writeable = False
    return UnicodeTables(block_of, classes, differences)


def _classes(characters: str, lower: np.ndarray) -> np.ndarray:
    categories = np.array([unicodedata.category(character) for character in characters], dtype="U2")
    major = categories.view(np.uint32).reshape(-1, 2)[:, 0]
    classes = np.zeros(_CODE_POINTS, np.uint32)
    classes[_CODES[major == ord("L")]] |= LETTER
    classes[_CODES[major == ord("M")]] |= MARK
    classes[_CODES[categories == "Nd"]] |= DIGIT
    classes[np.flatnonzero(lower)] |= CASED
    for code in _CODES[(major == ord("Z")) | (categories == "Cc")].tolist():
        if chr(code).isspace():
            classes[code] |= SPACE
    for members, flag in _LISTED:
        classes[[ord(member) for member in members]] |= flag
    for number, script in enumerate(SCRIPTS[1:], start=1):
        _add_script(classes, categories, script, number)
    return classes


def _add_script(classes: np.ndarray, categories: np.ndarray, script: str, number: int) -> None:
    inside = np.zeros(_CODE_POINTS, bool)
    for span in _SCRIPT_RANGES[script].split():
        first, _, last = span.partition("-")
        inside[int(first, 16) : int(last or first, 16) + 1] = True
    if script in _SINGLE_SCRIPTS:
        # The ideographic zero and numerals (category Nl) are words as the ideographs of other numbers are.
        classes[_CODES[inside[_CODES] & (categories == "Nl")]] |= LETTER
        inside &= (classes & LETTER) != 0
        classes[inside] |= SINGLE
    inside &= (classes & (LETTER | MARK)) != 0
    classes[inside] |= number << SCRIPT_SHIFT


def _lower_differences(characters: str) -> np.ndarray:
    # U+0130 lowers to two code points and stays as it is; a sigma's lower case hangs on what follows it.
    lowered = characters.replace("\u0130", "\0").replace("\u03a3", "\0").lower()
    codes = np.frombuffer(lowered.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    difference = np.zeros(_CODE_POINTS, np.int32)
    difference[_CODES] = codes - _CODES
    difference[0x130], difference[0x3A3] = 0, 0x3C3 - 0x3A3
    return difference
