"""Every compiled loop against an obvious Python twin, on arbitrary Unicode."""

import unicodedata
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aurora_m.corpus import kernels
from aurora_m.corpus.dedup import content_hashes
from aurora_m.corpus.language import ENOUGH_LETTERS, SAMPLE_BYTES, SAMPLES, sample_prose
from aurora_m.corpus.segments import Segments, segment, text_buffers
from aurora_m.corpus.unicode_tables import (
    BLOCK_BITS,
    CASED,
    DIGIT,
    LETTER,
    MARK,
    SCRIPT_SHIFT,
    SCRIPTS,
    SINGLE,
    SPACE,
    unicode_tables,
)

JOINERS = "\u00ad\u200c\u200d\u2060"
TERMINAL = ".!?…:。｡．！？：।॥؟۔‽⁇⁈⁉։።។"
CLOSING = "\"'*_`~)]}>»›”’」』）］】〉》"
OPENING = "\"'*_(（「『【《〈“‘„«‹¡¿"
BULLETS = "-*+•‣⁃∙◦●○■□▪▫◆◇►▶・"
SINGLE_NAMES = (
    "CJK UNIFIED",
    "CJK COMPATIBILITY IDEOGRAPH",
    "HIRAGANA",
    "KATAKANA",
    "HALFWIDTH KATAKANA",
    "HENTAIGANA",
)

# Letters of many widths, marks, joiners, odd spaces, and what the rules for lines look at.
TROUBLE = "aZ9 \n\t\r.#-*`~:…。、「」・的かナｶﾞ々〇ー゙\u3000क्ष१ि\u200c\u200d\u00ad\u200b\u0301éİΣßẢ한😀𠀀𝒳\u2028"
ASCII_EDGES = "aAzZ@[`{09 \x1f\x7f!"  # where runs of ASCII, which loops take at once, begin and end
texts = st.one_of(
    st.text(st.one_of(st.sampled_from(TROUBLE), st.characters(exclude_categories=["Cs"])), max_size=80),
    st.text(st.sampled_from(ASCII_EDGES + "éक"), max_size=40),
)
pages = st.lists(st.one_of(st.sampled_from(["---", "```", "- a", "# b", "", "x: y", "...", "“Yes.”"]), texts)).map(
    "\n".join
)


def column(values: list[str]) -> pa.LargeStringArray:
    return pa.array(values, pa.large_string())


def sample(values: list[str]) -> tuple[np.ndarray, list[str]]:
    scripts, data, offsets = sample_prose(column(values))
    return scripts, [data[begin:end].tobytes().decode() for begin, end in pairwise(offsets.tolist())]


def body_begins(text: str) -> int:
    """Twin: the character after the YAML header."""
    lines = text.split("\n")
    if lines[0].rstrip(" \t\r") != "---":
        return 0
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip(" \t\r") == "---" and (line or number < len(lines) - 1):
            return min(len(text), sum(len(line) + 1 for line in lines[: number + 1]))
    return 0


def is_single(character: str) -> bool:
    name = unicodedata.name(character, "")
    return unicodedata.category(character)[0] in "LN" and (
        (name.startswith(SINGLE_NAMES) and unicodedata.category(character)[0] == "L")
        or character in "〆ー々〇〻\uff70"
        or name.startswith(("KATAKANA-HIRAGANA PROLONGED", "IDEOGRAPHIC ITERATION", "HANGZHOU NUMERAL"))
        or name in ("VERTICAL IDEOGRAPHIC ITERATION MARK", "MASU MARK")
    )


def is_wordlike(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "LM" or category == "Nd" or is_single(character)


def words_of(text: str) -> list[tuple[int, int, str]]:
    """Twin: words as (first byte, byte after, lower case without joiners)."""
    words: list[list] = []
    at, open_word, single = 0, False, False
    for number, character in enumerate(text):
        size = len(character.encode())
        if number < body_begins(text):
            at += size
            continue
        if is_wordlike(character):
            mark = unicodedata.category(character)[0] == "M"
            if not open_word or is_single(character) or (single and not mark):
                words.append([at, at, ""])
                single = is_single(character)
            open_word = True
            lower = {"\u0130": "\u0130", "Σ": "σ"}.get(character, character.lower())
            words[-1][1] = at + size
            words[-1][2] += lower
        elif character not in JOINERS:
            open_word = False
        at += size
    return [tuple(word) for word in words]


def lines_of(text: str) -> list[tuple[int, int, str]]:
    """Twin: lines that are not blank, trimmed, as (first byte, byte after, text)."""
    found = []
    at = len(text[: body_begins(text)].encode())
    for line in text[body_begins(text) :].split("\n"):
        trimmed = line.strip()
        if trimmed:
            begin = at + len(line[: len(line) - len(line.lstrip())].encode())
            found.append((begin, begin + len(trimmed.encode()), trimmed))
        at += len(line.encode()) + 1
    return found


def counts_of(text: str) -> dict[str, int]:
    """Twin: the counts of a text."""
    body = text[body_begins(text) :]
    words = [word for _, _, word in words_of(text)]
    lettered = [word for word in words if any(unicodedata.category(c)[0] == "L" or is_single(c) for c in word)]
    wordlike = [c for c in body if is_wordlike(c)]
    digits = sum(unicodedata.category(c) == "Nd" for c in wordlike)
    lines = body.split("\n")
    if lines[-1] == "":
        lines.pop()
    return {
        "characters": len(body),
        "letters": len(wordlike) - digits,
        "digits": digits,
        "spaces": sum(c.isspace() for c in body),
        "words": len(words),
        "letter_words": len(lettered),
        "letter_word_characters": sum(map(len, lettered)),
        "hashes": sum(c == "#" and body[i - 1 : i] != "#" for i, c in enumerate(body)),
        "ellipses": body.count("…")
        + sum(len(run) >= 3 for run in "".join(c if c == "." else " " for c in body).split()),
        "curly_brackets": body.count("{"),
        "all_lines": len(lines),
        **line_counts(lines),
        "longest_line": max(map(len, lines), default=0),
    }


def line_counts(lines: list[str]) -> dict[str, int]:
    names = ("lines", "bullet_lines", "ellipsis_lines", "prose_lines", "terminal_lines")
    counts: dict[str, int] = dict.fromkeys(list(names), 0)
    fenced = False
    for line in filter(None, map(str.strip, lines)):
        fenced ^= line.startswith(("```", "~~~"))
        if not any(unicodedata.category(c)[0] == "L" or is_single(c) for c in line):
            continue
        spaced = line[1:2] in (" ", "\t")
        first, ending = line[0], line.rstrip(CLOSING)
        prose = not fenced and (
            unicodedata.category(first)[0] == "L" or is_single(first) or (first in OPENING and not spaced)
        )
        counts["lines"] += 1
        counts["bullet_lines"] += first in BULLETS and (first >= "•" or spaced)
        counts["ellipsis_lines"] += ending.endswith(("...", "…"))
        counts["prose_lines"] += prose
        counts["terminal_lines"] += prose and ending[-1:] in TERMINAL and ending != ""
    return counts


def mix(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


def hash_of(values: list[int]) -> int:
    """Twin: FNV-1a over whole values, then mixed."""
    state = 0xCBF29CE484222325
    for value in values:
        state = (state ^ value) * 0x100000001B3 % 2**64
    return mix(state)


def hash_of_bytes(line: bytes) -> int:
    """Twin: the length, and eight bytes at a time."""
    state = 0xCBF29CE484222325 ^ len(line)
    for at in range(0, len(line), 8):
        state = (state ^ int.from_bytes(line[at : at + 8], "little")) * 0x9E3779B97F4A7C15 % 2**64
        state ^= state >> 32
    return mix(state)


def of_text(segments: Segments, number: int, kind: str) -> slice:
    offsets = getattr(segments, f"{kind}_offsets")
    return slice(offsets[number], offsets[number + 1])


@settings(max_examples=300, deadline=None)
@given(st.lists(pages, max_size=5))
@example(["---\ntitle: x\n---\nनमस्ते\nदुनिया", "", "カﾞ漢字かな交じり文abc１２"])
def test_words_are_those_of_the_twin(values):
    segments = segment(column(values))
    for number, text in enumerate(values):
        part = of_text(segments, number, "word")
        expected = words_of(text)
        starts, ends = segments.word_start[part].tolist(), segments.word_end[part].tolist()
        assert list(zip(starts, ends, strict=True)) == [(begin, end) for begin, end, _ in expected]
        assert segments.word_hash[part].tolist() == [hash_of([ord(c) for c in word]) for _, _, word in expected]
        assert segments.word_characters[part].tolist() == [len(word) for _, _, word in expected]


@settings(max_examples=300, deadline=None)
@given(st.lists(pages, max_size=5))
@example(["a\r\n\n \u3000b \u2003\n", "---\n---\n", "--- \nx\n---\t", "---"])
def test_lines_are_those_of_the_twin(values):
    segments = segment(column(values))
    for number, text in enumerate(values):
        part = of_text(segments, number, "line")
        expected = lines_of(text)
        starts, ends = segments.line_start[part].tolist(), segments.line_end[part].tolist()
        assert list(zip(starts, ends, strict=True)) == [(begin, end) for begin, end, _ in expected]
        assert segments.line_hash[part].tolist() == [hash_of_bytes(line.encode()) for _, _, line in expected]
        assert segments.line_characters[part].tolist() == [len(line) for _, _, line in expected]


@settings(max_examples=300, deadline=None)
@given(st.lists(pages, max_size=5))
@example(["- item\n-1\n• x\n“Said.”\n**Bold:**\n```\nlet x = 1;\n```\nand so on ...\n## A ## b....c…"])
def test_counts_are_those_of_the_twin(values):
    segments = segment(column(values))
    for number, text in enumerate(values):
        assert dict(zip(kernels.COUNTS, segments.counts[number].tolist(), strict=True)) == counts_of(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, max_size=5))
def test_content_hashes_are_those_of_the_twin(values):
    def twin(text: str) -> int:
        folded = " ".join(text.split())
        return hash_of([ord({"\u0130": "\u0130", "Σ": "σ"}.get(c, c.lower())) for c in folded])

    assert content_hashes(column(values)).tolist() == [twin(text) for text in values]


def test_words_of_japanese_are_single_characters_and_their_bytes_are_right():
    text = "日本語のﾃｷｽﾄ、abc123だ。が゙"
    segments = segment(column(["x" * 7, text]))
    part = of_text(segments, 1, "word")
    spans = zip(segments.word_start[part], segments.word_end[part], strict=True)
    words = [text.encode()[begin:end].decode() for begin, end in spans]
    assert words == ["日", "本", "語", "の", "ﾃ", "ｷ", "ｽ", "ﾄ", "abc123", "だ", "が゙"]


def test_hindi_words_are_split_at_newlines_and_keep_their_joiners():
    words = words_of("पहला\nदूसरा\r\nक्\u200dष")
    assert [word for _, _, word in words] == ["पहला", "दूसरा", "क्ष"]
    assert segment(column(["पहला\nदूसरा\r\nक्\u200dष"])).count("words").tolist() == [3]


@pytest.mark.parametrize(
    "damaged",
    [b"\xe3\x81", b"abc\xf0\x9f\x98", b"\xc0\xaf\xed", b"\xff\xfe word \x80", b"\xf4\x90\x80\x80 x", b"---\n\xe3"],
)
def test_damaged_utf8_is_read_to_its_end_and_no_further(damaged):
    data = damaged + "次の文書".encode()
    offsets = np.array([0, len(damaged), len(data)], np.int64)
    values = pa.LargeStringArray.from_buffers(2, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data))
    segments = segment(values)
    assert segments.count("words")[1] == 4
    assert segments.word_end[of_text(segments, 0, "word")].max(initial=0) <= len(damaged)
    assert segments.line_end[of_text(segments, 0, "line")].max(initial=0) <= len(damaged)
    assert content_hashes(values)[1] == content_hashes(column(["次の文書"]))[0]
    sample_prose(values)


@settings(max_examples=50, deadline=None)
@given(st.lists(pages, min_size=1, max_size=6), st.data())
def test_a_text_is_read_the_same_alone_in_a_batch_and_in_a_slice(values, data):
    number = data.draw(st.integers(0, len(values) - 1))
    whole, sliced, alone = segment(column(values)), segment(column(values)[number:]), segment(column([values[number]]))
    for segments, at in ((whole, number), (sliced, 0)):
        assert np.array_equal(segments.counts[at], alone.counts[0])
        assert np.array_equal(segments.word_hash[of_text(segments, at, "word")], alone.word_hash)
        assert np.array_equal(segments.word_start[of_text(segments, at, "word")], alone.word_start)
        assert np.array_equal(segments.line_hash[of_text(segments, at, "line")], alone.line_hash)


@pytest.mark.parametrize("values", [[], [""], ["", "", ""], [None, "a", None]])
def test_empty_and_missing_texts_have_no_words(values):
    segments = segment(pa.array(values, pa.large_string()))
    assert len(segments) == len(values)
    assert segments.count("words").sum() == values.count("a")


def test_small_strings_and_chunks_are_read_as_well():
    chunked = pa.chunked_array([pa.array(["one two"]), pa.array(["three"])])
    assert segment(chunked).count("words").tolist() == [2, 1]


def test_unicode_tables_agree_with_unicodedata_everywhere():
    tables = unicode_tables()
    codes = np.arange(0x110000)
    at = (tables.block_of[codes >> BLOCK_BITS].astype(np.int64) << BLOCK_BITS) | (codes & ((1 << BLOCK_BITS) - 1))
    classes, lower = tables.classes[at], tables.lower[at]
    for code in (*range(0x3400), *range(0xA000, 0xAC80), *range(0xD7A0, 0x11000), *range(0x1AFF0, 0x1B200), 0x2FA1D):
        character, flags = chr(code), classes[code]
        category = unicodedata.category(character)
        assert bool(flags & LETTER) == (category[0] == "L" or is_single(character)), hex(code)
        assert bool(flags & MARK) == (category[0] == "M"), hex(code)
        assert bool(flags & DIGIT) == (category == "Nd"), hex(code)
        assert bool(flags & SPACE) == character.isspace(), hex(code)
        assert bool(flags & SINGLE) == is_single(character), hex(code)
        if len(character.lower()) == 1:
            assert code + lower[code] == ord(character.lower()), hex(code)
            assert bool(flags & CASED) == (lower[code] != 0)


@pytest.mark.parametrize(
    ("character", "script"),
    [("q", "Latin"), ("ễ", "Latin"), ("ж", "Cyrillic"), ("ह", "Devanagari"), ("ি", "Bengali"), ("한", "Hangul"),
     ("漢", "Han"), ("𠀀", "Han"), ("ひ", "Hiragana"), ("カ", "Katakana"), ("ｶ", "Katakana"), ("ع", "Arabic"), ("7", "none")],
)  # fmt: skip
def test_letters_have_their_script(character, script):
    tables = unicode_tables()
    code = ord(character)
    at = (int(tables.block_of[code >> BLOCK_BITS]) << BLOCK_BITS) | (code & ((1 << BLOCK_BITS) - 1))
    assert SCRIPTS[tables.classes[at] >> SCRIPT_SHIFT] == script


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=600), min_size=1, max_size=4))
def test_samples_of_prose_are_whole_characters_and_of_bounded_size(values):
    scripts, samples = sample(values)
    assert len(samples) == len(values) * SAMPLES
    assert all(len(sample.encode()) <= SAMPLE_BYTES + 3 for sample in samples)
    assert not any(
        "�" in sample for sample, text in zip(samples, np.repeat(values, SAMPLES), strict=True) if "�" not in text
    )
    for number, text in enumerate(values):
        assert scripts[number].sum() <= sum(unicodedata.category(c)[0] in "LN" for c in text)


def test_samples_leave_out_code_links_tags_and_headers():
    prose = "Plain words of the page itself. " * 3
    page = (
        "---\ntitle: hidden\n---\n"
        + prose
        + "`inline` [label](target/path) <span class='x'>bold</span> https://address.example/path\n"
        + "```js\nlet fenced = 1\n```\nthe end"
    )
    _, samples = sample([page])
    shown = " ".join(samples)
    assert "label" in shown and "bold" in shown and "the end" in shown
    for hidden in ("title", "inline", "target", "span", "address", "https", "fenced"):
        assert hidden not in shown


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.text(st.sampled_from("abZé\u0301कि日\u200d 09.,@[\x7f"), max_size=30)), max_size=6
    )
)
def test_prose_is_letters_and_marks_outside_of_fences(blocks):
    page = "\n".join(f"```\n{text}\n```" if fenced else text for fenced, text in blocks)
    shown = " ".join(text for fenced, text in blocks if not fenced)
    letters = sum(unicodedata.category(c)[0] == "L" for c in shown)
    if letters < ENOUGH_LETTERS:
        page, shown = f"{page}\n{'x' * ENOUGH_LETTERS}", f"{shown} {'x' * ENOUGH_LETTERS}"
        letters += ENOUGH_LETTERS
    kept = "".join(c if unicodedata.category(c)[0] in "LM" or c in JOINERS else " " for c in shown)
    scripts, samples = sample([page])
    assert scripts.sum() == letters
    prose = " ".join(kept.split())
    if len(prose.encode()) <= SAMPLE_BYTES:
        assert samples == [prose, "", "", ""]


def test_a_text_that_is_all_code_is_sampled_all_the_same():
    scripts, samples = sample(["```\n" + "some code and more code " * 4 + "\n```"])
    assert scripts.sum() >= ENOUGH_LETTERS
    assert "more code" in samples[0]


def test_buffers_are_read_only_views():
    data, offsets = text_buffers(column(["ab", "c"]))
    assert not data.flags.writeable and not offsets.flags.writeable
    assert offsets.tolist() == [0, 2, 3]
