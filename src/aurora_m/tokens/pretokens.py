"""Where pre-tokenisation cuts a text: the regular expressions of well-known tokenizers as compiled loops.

Byte-level tokenizers cut a text into pieces with a regular expression and merge within each piece alone. The
expressions in use are few. Three families are known here, each a function that finds the end of the piece at a byte:

    GPT-2        the `ByteLevel` step of `tokenizers` itself, alone or after `Digits` (StarCoder, StarCoder2)
    cl100k       the expression of GPT-4 that Llama 3 and Qwen2 took over, as a `Split` step
    BLOOM        runs without white space and sentence punctuation, as a `Split` step

What is a letter, a number or white space is asked of the regular expressions of `tokenizers` themselves, code point by
code point, so that both always speak of the same edition of Unicode.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Regex, normalizers, pre_tokenizers

from aurora_m.workspace import kernel

# Classes of a code point; they exclude each other. Without a class: marks, punctuation, symbols, unassigned.
LETTER, NUMBER, SPACE, DIGIT = 1, 2, 4, 8  # DIGIT: what a `Digits` step sets apart
GPT2, CL100K, BLOOM = 0, 1, 2

# Planes 4 to 13 are unassigned, 15 and 16 for private use; between them lie tags and variation selectors.
_CODES = np.concatenate([np.arange(0xD800), np.arange(0xE000, 0x40000), np.arange(0xE0000, 0xE0200)])

_CONTRACTIONS = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?i:'s|'d|'m|'t|'ll|'ve|'re)", "'(?i:[sdmt]|ll|ve|re)")
_CL100K_DIGITS = {r"\p{N}": 1, r"\p{N}{1,3}": 3}
_CL100K = {
    rf"{contractions}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": digits
    for contractions in _CONTRACTIONS
    for numbers, digits in _CL100K_DIGITS.items()
}
# Oniguruma reads the inner brackets as a class within the class: ( ) | and white space cut as well.
_BLOOM_CUTS = "()|.,!?…。，、।۔،"
_BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


class Pattern(NamedTuple):
    """A pre-tokenisation: its family, how many numbers a piece may hold (0: any), the class of each code point."""

    family: int
    digits: int
    classes: np.ndarray  # uint8[0x110000]


def known_pattern(pre_tokenizer: dict[str, Any] | None) -> Pattern | str:
    """The pattern of a pre-tokenizer as tokenizer.json describes it, or why it is none of those known here."""
    steps = _steps(pre_tokenizer)
    if not steps or steps[-1].get("type") != "ByteLevel":
        return f"its pre-tokenizer ({_name(pre_tokenizer)}) does not end in ByteLevel"
    *before, last = steps
    if last.get("add_prefix_space", True):
        return "it puts a space before the text (add_prefix_space)"
    kinds = [step.get("type") for step in before]
    if last.get("use_regex", True):
        if not before:
            return Pattern(GPT2, 0, _classes())
        if kinds == ["Digits"] and before[0].get("individual_digits"):
            return Pattern(GPT2, 1, _classes(digits_apart=True))
    elif kinds == ["Split"] and before[0].get("behavior") == "Isolated" and not before[0].get("invert"):
        expression = before[0].get("pattern", {}).get("Regex")
        if expression in _CL100K:
            return Pattern(CL100K, _CL100K[expression], _classes())
        if expression == _BLOOM:
            return Pattern(BLOOM, 0, _classes(cuts=_BLOOM_CUTS))
        return f"its pre-tokenizer splits by an expression not known here: {expression!r}"
    return f"its pre-tokenizer ({_name(pre_tokenizer)}) is none of those known here"


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if not pre_tokenizer:
        return []
    return pre_tokenizer.get("pretokenizers", []) if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]


def _name(pre_tokenizer: dict[str, Any] | None) -> str:
    return ", ".join(str(step.get("type")) for step in _steps(pre_tokenizer)) or "none"


@cache
def _classes(digits_apart: bool = False, cuts: str = "") -> np.ndarray:
    """uint8[0x110000]: LETTER, NUMBER, SPACE, DIGIT or 0; `cuts` count as white space."""
    classes = np.zeros(0x110000, dtype=np.uint8)
    for expression, value in ((r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)):
        classes[_matching(expression)] = value
    if digits_apart:
        classes[_set_apart()] = DIGIT
    classes[[ord(character) for character in cuts]] = SPACE
    classes.flags.writeable = False
    return classes


def _matching(expression: str) -> np.ndarray:
    """The code points that an expression of one character matches."""
    # The mark is a code point of no class, outside those asked about.
    text = "".join(map(chr, _CODES.tolist()))
    marked = normalizers.Replace(Regex(expression), "\U0010ffff").normalize_str(text)
    return _CODES[np.frombuffer(marked.encode("utf-32-le"), dtype="<u4") == 0x10FFFF]


def _set_apart() -> np.ndarray:
    """The code points that a `Digits` step takes for digits."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    pieces = digits.pre_tokenize_str("".join(map(chr, _CODES.tolist())))
    # A piece of one character is a digit, or what stands alone between two of them.
    single = [piece for piece, _ in pieces if len(piece) == 1]
    return np.array([ord(piece) for piece in single if len(digits.pre_tokenize_str(piece + piece)) == 2])


@kernel
def class_at(data, i, stop, classes):
    """The class of the character at byte i and the byte after it; never past `stop`, whatever the bytes."""
    lead = np.int64(data[np.uint64(i)])
    if lead < 0x80:
        return np.int64(classes[np.uint64(lead)]), i + 1
    if lead < 0xE0:
        if i + 2 <= stop:
            code = ((lead & 0x1F) << 6) | (np.int64(data[np.uint64(i + 1)]) & 0x3F)
            return np.int64(classes[np.uint64(code)]), i + 2
    elif lead < 0xF0:
        if i + 3 <= stop:
            code = ((lead & 0x0F) << 12) | ((np.int64(data[np.uint64(i + 1)]) & 0x3F) << 6)
            return np.int64(classes[np.uint64(code | (np.int64(data[np.uint64(i + 2)]) & 0x3F))]), i + 3
    elif i + 4 <= stop:
        code = ((lead & 0x07) << 18) | ((np.int64(data[np.uint64(i + 1)]) & 0x3F) << 12)
        code |= ((np.int64(data[np.uint64(i + 2)]) & 0x3F) << 6) | (np.int64(data[np.uint64(i + 3)]) & 0x3F)
        return np.int64(classes[np.uint64(min(code, np.int64(0x10FFFF)))]), i + 4
    return np.int64(0), stop


@kernel
def _run_end(data, i, stop, classes, wanted):
    """The byte after the characters of one class that begin at i."""
    while i < stop:
        found, after = class_at(data, i, stop, classes)
        if found != wanted:
            return i
        i = after
    return i


@kernel
def _spaces_end(data, i, stop, classes):
    r"""The end of `\s+(?!\S)|\s+`: white space before a word leaves its last character to the word."""
    last = i
    end = i
    while end < stop:
        found, after = class_at(data, end, stop, classes)
        if found == DIGIT:  # it was set apart before: here the text ends for the expression
            return end
        if found != SPACE:
            return last if last > i else end
        last = end
        end = after
    return end


@kernel
def _contraction_end(data, i, stop, any_case):
    """The end of 's, 't, 're, 've, 'm, 'll or 'd at the apostrophe at i, or 0 where there is none."""
    if i + 1 >= stop:
        return 0
    first = np.int64(data[np.uint64(i + 1)])
    second = np.int64(data[np.uint64(i + 2)]) if i + 2 < stop else np.int64(0)
    if any_case:
        if first == 0xC5 and second == 0xBF:  # the long s, whose capital is S
            return i + 3
        if 65 <= first <= 90:
            first |= 32
        if 65 <= second <= 90:
            second |= 32
    if first == 115 or first == 116 or first == 109 or first == 100:  # s t m d
        return i + 2
    if second == 101 and (first == 114 or first == 118):  # re ve
        return i + 3
    return i + 3 if first == 108 and second == 108 else 0  # ll


@kernel
def _gpt2_end(data, i, stop, classes):
    r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    first = data[np.uint64(i)]
    if first == 39:
        end = _contraction_end(data, i, stop, False)
        if end:
            return end
    found, after = class_at(data, i, stop, classes)
    if first == 32 and after < stop:
        following, behind = class_at(data, after, stop, classes)
        if following != SPACE and following != DIGIT:
            return _run_end(data, behind, stop, classes, following)
    if found == SPACE:
        return _spaces_end(data, i, stop, classes)
    if found == DIGIT:
        return after
    return _run_end(data, after, stop, classes, found)


@kernel
def _cl100k_end(data, i, stop, classes, digits):
    r"""(?i:'s|...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
    first = data[np.uint64(i)]
    if first == 39:
        end = _contraction_end(data, i, stop, True)
        if end:
            return end
    found, after = class_at(data, i, stop, classes)
    if found == LETTER:
        return _run_end(data, after, stop, classes, LETTER)
    if found == NUMBER:
        for _ in range(digits - 1):
            if after < stop:
                following, behind = class_at(data, after, stop, classes)
                if following == NUMBER:
                    after = behind
        return after
    following, behind = np.int64(SPACE), after
    if after < stop:
        following, behind = class_at(data, after, stop, classes)
    if following == LETTER and first != 10 and first != 13:
        return _run_end(data, behind, stop, classes, LETTER)
    if found == 0 or (first == 32 and following == 0):
        end = _run_end(data, after, stop, classes, 0)
        while end < stop and (data[np.uint64(end)] == 10 or data[np.uint64(end)] == 13):
            end += 1
        return end
    run = _run_end(data, i, stop, classes, SPACE)
    for end in range(run, i, -1):
        if data[np.uint64(end - 1)] == 10 or data[np.uint64(end - 1)] == 13:
            return end
    return _spaces_end(data, i, stop, classes)


@kernel
def _bloom_begins(data, i, stop, classes):
    """Whether the expression matches at i: a character that does not cut, or a space before one."""
    found, after = class_at(data, i, stop, classes)
    if found == SPACE and data[np.uint64(i)] == 32 and after < stop:
        found, _ = class_at(data, after, stop, classes)
    return found != SPACE


@kernel
def _bloom_end(data, i, stop, classes):
    """` ?[^cuts]+`; what lies between two matches is one piece."""
    matches = _bloom_begins(data, i, stop, classes)
    _, end = class_at(data, i, stop, classes)
    while end < stop:
        if matches:
            found, after = class_at(data, end, stop, classes)
            if found == SPACE:
                return end
            end = after
        elif _bloom_begins(data, end, stop, classes):
            return end
        else:
            _, end = class_at(data, end, stop, classes)
    return stop


@kernel
def piece_end(data, i, stop, family, digits, classes):
    """The byte after the piece that begins at byte i of a text that ends at `stop`."""
    if family == GPT2:
        return _gpt2_end(data, i, stop, classes)
    if family == CL100K:
        return _cl100k_end(data, i, stop, classes, digits)
    return _bloom_end(data, i, stop, classes)
