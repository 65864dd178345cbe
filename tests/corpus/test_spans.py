"""Repeated runs of words are exactly those that brute force finds."""

import random
import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_m.corpus import array_files
from aurora_m.corpus.segments import segment
from aurora_m.corpus.spans import SpanIndex, word_runs


def column(texts: list[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def find(folder, texts: list[str], window: int, keep: list[bool] | None = None, batch=3) -> list[list[tuple[int, int]]]:
    """First and number of the words of every repeated run, by text."""
    index = SpanIndex(folder, window)
    for first in range(0, len(texts), batch):
        some = texts[first : first + batch]
        index.add(word_runs(column(some), segment(column(some)), window), len(some))
    runs, offsets = index.resolve(np.array(keep if keep is not None else [True] * len(texts), bool))
    return [[tuple(run) for run in runs[a:b].tolist()] for a, b in pairwise(offsets)]


def stretches(text: str) -> list[list[tuple[int, str]]]:
    """Words with their numbers, parted by fenced code; line by line, texts without a YAML header."""
    found: list[list[tuple[int, str]]] = [[]]
    lines = [line.strip() for line in text.lower().split("\n")]
    number, fenced, underline = 0, False, False
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        words = re.findall(r"\w+", line)
        numbered = list(enumerate(words, number))
        number += len(words)
        if not line:
            continue
        was_underline, underline = underline, False
        if not was_underline and line.startswith(("```", "~~~")):
            fenced = not fenced
            found.append([])
        elif not fenced:
            found[-1] += numbered
            if not was_underline and re.fullmatch(r"={3,}|-{3,}|~{3,}|\^{3,}", following):
                underline = following[0] != "~" or len(following) >= len(line)
    return found


def twin(texts: list[str], window: int, keep: list[bool] | None = None) -> list[list[tuple[int, int]]]:
    seen, found = set(), []
    for number, text in enumerate(texts):
        runs: list[list[int]] = []
        for words in stretches(text) if keep is None or keep[number] else ():
            for at in range(len(words) - window + 1):
                start, key = words[at][0], tuple(word for _, word in words[at : at + window])
                if key in seen:
                    if runs and start < sum(runs[-1]):
                        runs[-1][1] = start + window - runs[-1][0]
                    else:
                        runs.append([start, window])
                seen.add(key)
        found.append([(first, count) for first, count in runs])
    return found


def test_a_run_that_came_before_is_found_at_any_place_whatever_its_case(tmp_path):
    run = "the same eight words in a row here"
    texts = [f"before {run} after", f"{run.upper()}!", f"more {run[:-5]}", f"x y, {run.replace(' ', ', ')} z {run}"]
    assert find(tmp_path, texts, 8) == [[], [(0, 8)], [], [(2, 8), (11, 8)]] == twin(texts, 8)


def test_the_first_of_a_document_that_goes_does_not_count(tmp_path):
    texts = ["a b c d e"] * 3
    assert find(tmp_path, texts, 4, [False, True, True]) == [[], [], [(0, 5)]]


def test_a_run_that_repeats_itself_keeps_one_window(tmp_path):
    assert find(tmp_path, ["a " * 20], 4) == [[(1, 19)]] == twin(["a " * 20], 4)


@settings(max_examples=300, deadline=None)
@given(
    st.data(),
    st.integers(2, 9),
    st.sampled_from([1, 2, 5, 10**6]),
    st.sampled_from(["ab", "abcde", "abcdefghijklmnop"]),
)
def test_runs_are_those_of_brute_force(tmp_path_factory, data, window, at_once, letters):
    """Few letters make nearly everything repeat, many next to nothing but what is copied on purpose."""
    texts = data.draw(st.lists(st.lists(st.sampled_from(letters), max_size=40), max_size=8))
    for _ in range(data.draw(st.integers(0, 4)) if texts else 0):
        source, target = data.draw(st.sampled_from(texts)), data.draw(st.sampled_from(texts))
        begin = data.draw(st.integers(0, len(source)))
        target[len(target) // 2 : len(target) // 2] = source[begin : begin + data.draw(st.integers(0, 20))]
    keep = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    joined = [" ".join(text) for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array_files, "AT_ONCE", at_once)
        assert find(tmp_path_factory.mktemp("index"), joined, window, keep) == twin(joined, window, keep)


def test_runs_of_fifty_words_are_those_of_brute_force(tmp_path):
    generator = random.Random(5)
    words = [f"w{number}" for number in range(2000)]
    texts = [generator.choices(words, k=generator.randint(30, 300)) for _ in range(120)]
    for _ in range(80):
        source, target = generator.sample(texts, 2)
        begin, length = generator.randint(0, len(source)), generator.choice([30, 49, 50, 51, 80, 200])
        at = generator.randint(0, len(target))
        target[at:at] = source[begin : begin + length]
    joined = [" ".join(text) for text in texts]
    expected = twin(joined, 50)
    assert sum(len(runs) for runs in expected) > 20
    assert find(tmp_path, joined, 50) == expected


def test_fenced_code_is_in_no_run_and_parts_the_words_around_it(tmp_path):
    run = "a b c d e f"
    texts = [
        run,
        f"```sh\n{run}\n```",
        f"Words:\n~~~\n{run}\n{run}",
        "a b c\n```\n+---+\n```\nd e f",
        f"```\ny\n```\n{run}",
    ]
    assert find(tmp_path, texts, 6) == [[], [], [], [], [(1, 6)]] == twin(texts, 6)
    assert find(tmp_path, [run, f"Title\n~~~~~\n{run}"], 6) == [[], [(1, 6)]]


MARKDOWN = st.lists(
    st.sampled_from(
        ["", " ", "a", "a b", "b a a", "a b b a b", "```", "  ```a b", "~~~", "===", "~~~~~", "# a", "> b"]
    ),
    max_size=16,
).map("\n".join)


@settings(max_examples=400, deadline=None)
@given(st.lists(MARKDOWN, max_size=6), st.integers(2, 7), st.sampled_from([1, 3, 10**6]), st.data())
def test_runs_outside_fenced_code_are_those_of_brute_force(tmp_path_factory, texts, window, at_once, data):
    texts = ["x\n" + text for text in texts]  # no YAML header
    keep = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array_files, "AT_ONCE", at_once)
        assert find(tmp_path_factory.mktemp("index"), texts, window, keep) == twin(texts, window, keep)
