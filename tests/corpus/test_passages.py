"""Passages are the paragraphs or lines of prose, and cutting them leaves the rest of the text as it was."""

import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_m.corpus.passages import Passages, cut, find_passages
from aurora_m.corpus.segments import segment


def column(texts: list[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def find(texts: list[str], *, by_line: bool = False, min_words: int = 1) -> Passages:
    return find_passages(column(texts), segment(column(texts)), by_line=by_line, min_words=min_words)


def spans_of(texts: list[str], passages: Passages) -> list[list[str]]:
    """The bytes of every passage, as text, by text."""
    return [
        [texts[row].encode()[begin:end].decode() for begin, end, _, _ in passages.spans[a:b].tolist()]
        for row, (a, b) in enumerate(pairwise(passages.offsets))
    ]


def shown(text: str, **how) -> list[str]:
    return spans_of([text], find([text], **how))[0]


def test_paragraphs_are_runs_of_lines_and_blank_lines_part_them():
    text = "One line,\n  and another.  \n \nThen more.\n\n\nThe end"
    assert shown(text) == ["One line,\n  and another.  ", "Then more.", "The end"]
    assert shown(text, by_line=True) == ["One line,", "  and another.  ", "Then more.", "The end"]


def test_equal_passages_have_equal_keys_whatever_stands_around_them():
    first, second = "Some words here,\nand more.", "# Title\n\n   Some words here,  \nand more.\t\n\nElse"
    keys = find([first, second]).keys.tolist()
    assert keys[0] == keys[1] != keys[2]
    assert len(set(find(["a b\nc", "a b c", "a b\n\nc", "c\na b"]).keys.tolist())) == 5


def test_short_passages_are_left_alone_and_light_words_count_half():
    texts = ["one two three", "one two 3", "日本語の文です", "one two 3 4 five"]
    assert [len(spans) for spans in spans_of(texts, find(texts, min_words=3))] == [1, 0, 1, 1]
    assert shown("日本語の文", min_words=3) == [] and shown("--- === 1 2 3") == []


def test_fenced_code_is_no_passage_and_parts_the_text_around_it():
    text = "Before it:\n```python\nimport os\n\n# comment\nos.exit()\n```\nafter it.\n~~~\nopen to the end"
    assert shown(text) == ["Before it:", "after it."]


@pytest.mark.parametrize("by_line", [False, True])
def test_a_heading_goes_with_the_only_passage_of_its_section(by_line):
    assert shown("# A title\n\nText of it.\n\n## Next\n\nOne.\n\nTwo.", by_line=by_line) == [
        "# A title\n\nText of it.",
        "One.",
        "Two.",
    ]
    assert shown("Copyright\n=====\n\nPublic domain.", by_line=by_line) == ["Copyright\n=====\n\nPublic domain."]
    assert shown("Notes\n~~~~~\nText.", by_line=by_line) == ["Notes\n~~~~~\nText."]
    assert shown("# A\n## B\nText.", by_line=by_line) == ["## B\nText."]
    assert shown("# A\n\n```\ncode\n```\nText.", by_line=by_line) == ["Text."]
    assert shown("# A\n\nText.\n```\ncode\n```", by_line=by_line) == ["Text."]


def test_line_by_line_quotes_stay():
    text = "> [!NOTE]\n> Mind this.\n\nText."
    assert shown(text, by_line=True) == ["Text."]
    assert shown(text) == ["> [!NOTE]\n> Mind this.", "Text."]


def test_the_header_of_a_page_is_no_passage():
    assert shown("---\nauthor: someone\n---\nText of it.") == ["Text of it."]


def twin(text: str, by_line: bool) -> list[tuple[str, int, int]]:
    """Lines of every passage, and the first and last character of what is to be cut; texts without a YAML header."""
    lines, at = [], 0
    for raw in text.split("\n"):
        lines.append((raw.strip(), at, at + len(raw)))
        at += len(raw) + 1
    blank_before, fenced, underline = True, False, False
    kept = []
    for number, (line, begin, end) in enumerate(lines):
        if not line:
            blank_before = True
            continue
        following = lines[number + 1][0] if number + 1 < len(lines) else ""
        was_underline, underline = underline, False
        title = False
        if was_underline:
            kind = "underline"
        elif line.startswith(("```", "~~~")):
            fenced, kind = not fenced, "spared"
        elif fenced or (by_line and line.startswith(">")):
            kind = "spared"
        else:
            underline = re.fullmatch(r"={3,}|-{3,}|~{3,}|\^{3,}", following) is not None
            underline = underline and (not following.startswith("~") or len(following) >= len(line))
            title = underline or line.startswith("#")
            kind = "title" if title else "text"
        kept.append((line, begin, end, kind, blank_before))
        blank_before = False
    passages, opened, title_at, above = [], None, None, None
    for line, begin, end, kind, paragraph in [*kept, ("", 0, 0, "title", True)]:
        if opened and (kind != "text" or by_line or paragraph):
            if above is not None and kind == "title":
                opened = (opened[0], above, opened[2])
            passages.append(opened)
            opened = None
        if kind == "text":
            if not opened:
                opened, above = ([line], begin, end), title_at
            else:
                opened = ([*opened[0], line], opened[1], end)
        if kind == "title":
            title_at = begin
        elif kind != "underline":
            title_at = None
    return [("\n".join(lines), begin, end) for lines, begin, end in passages]


LINES = st.sampled_from(
    ["", " ", "# h", "a b", "ä  ", "  b c", "```", "~~~", "===", "---", "> q", "日本", "\u3000x", "#", "a b", "1 2"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(LINES, max_size=12).map("\n".join), max_size=4), st.booleans())
def test_passages_are_those_of_the_twin(texts, by_line):
    texts = ["x\n" + text for text in texts]  # no YAML header
    found = find(texts, by_line=by_line)
    expected = [[p for p in twin(text, by_line) if re.search(r"[^\W\d_]", p[0])] for text in texts]
    assert spans_of(texts, found) == [[t[b:e] for _, b, e in ps] for t, ps in zip(texts, expected, strict=True)]
    by_key: dict[int, set[str]] = {}
    for key, (lines, _, _) in zip(found.keys.tolist(), (p for ps in expected for p in ps), strict=True):
        by_key.setdefault(key, set()).add(lines)
    assert all(len(lines) == 1 for lines in by_key.values())
    assert len({line for lines in by_key.values() for line in lines}) == len(by_key)
    for row, (a, b) in enumerate(pairwise(found.offsets)):
        words = segment(column([texts[row]]))
        starts = words.word_start.tolist()
        assert found.words[row] == len(starts)
        for begin, end, first, count in found.spans[a:b].tolist():
            assert [n for n, start in enumerate(starts) if begin <= start < end] == list(range(first, first + count))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(), max_size=5))
def test_any_text_has_passages_within_its_bounds(texts):
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    for by_line in (False, True):
        found = find(texts, by_line=by_line)
        for row, (a, b) in enumerate(pairwise(found.offsets)):
            spans = found.spans[a:b]
            assert (spans[:, 0] < spans[:, 1]).all() and (spans[:, 1] <= len(texts[row].encode())).all()
            assert (spans[1:, 0] >= spans[:-1, 1]).all()


def cut_one(text: str, *spans: tuple[int, int]) -> str:
    rows, begins, ends = np.zeros(len(spans), np.int64), *np.array(spans, np.int64).reshape(-1, 2).T
    texts, gone = cut(column([text]), rows, begins, ends)
    assert gone[0] == len(text.encode()) - len(texts[0].as_py().encode())
    return texts[0].as_py()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A\n\n[x]\n\nB", "A\n\nB"),
        ("A\n[x]\nB", "A\nB"),
        ("A\n[x]\n\nB", "A\n\nB"),
        ("A\n\n[x]\nB", "A\n\nB"),
        ("A [x] B", "A B"),
        ("A [x]\nB", "A\nB"),
        ("A\n[x] B", "A\nB"),
        ("A.[x]B", "A.B"),
        ("[x]\n\n  B", "  B"),
        ("[x] B", "B"),
        ("A\n\n[x]\n", "A"),
        ("A\n[x]\n    B\n", "A\n    B"),
        ("A\n[x]\n[y]\n\n[z]\nB", "A\nB"),
        ("A\n[x]\n\nB\n[y]\nC", "A\n\nB\nC"),
        ("[x]", ""),
        (" \n[x]\n ", ""),
        ("ä[x]\u3000[y]日", "ä\u3000日"),
    ],
)
def test_of_the_white_space_around_a_cut_the_wider_stays(text, expected):
    raw, spans = "", []
    for part in re.split(r"(\[\w\])", text):
        if re.fullmatch(r"\[\w\]", part):
            spans.append((len(raw.encode()), len(raw.encode()) + 4))
            part = "x y."
        raw += part
    assert cut_one(raw, *spans) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("ab \n\tä", max_size=20), min_size=1, max_size=4), st.data())
def test_what_is_not_white_space_stays_in_order(texts, data):
    rows, begins, ends, expected = [], [], [], []
    for row, text in enumerate(texts):
        points = data.draw(st.lists(st.tuples(st.integers(0, len(text)), st.integers(0, len(text))), max_size=4))
        spans = sorted(tuple(sorted(point)) for point in points)
        spans = [(a, b) for a, b in spans if a < b]
        gone = {at for a, b in spans for at in range(a, b)}
        expected.append([c for at, c in enumerate(text) if at not in gone and not c.isspace()])
        for a, b in spans:
            rows.append(row)
            begins.append(len(text[:a].encode()))
            ends.append(len(text[:b].encode()))
    left, _ = cut(column(texts), np.array(rows, np.int64), np.array(begins, np.int64), np.array(ends, np.int64))
    assert [[c for c in text if not c.isspace()] for text in left.to_pylist()] == expected
    for row, text in enumerate(left.to_pylist()):
        assert text == (texts[row] if row not in rows else text.rstrip(" \n\t"))
