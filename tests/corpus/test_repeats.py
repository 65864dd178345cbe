"""Of equal paragraphs the first in the order of documents stays, whatever the size of the parts they are sorted in."""

import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_m.corpus import CurateConfig, DomainConfig, array_files, curate, removals, repeats
from aurora_m.corpus.config import RepeatedTextConfig
from aurora_m.corpus.dedup import content_hashes
from aurora_m.corpus.removals import RepeatedText, RepeatIndex
from aurora_m.corpus.repeatable import Repeatable
from aurora_m.corpus.segments import segment
from aurora_m.workspace import Progress

QUIET = Progress(quiet=True)
WORDS = [a + b + c for a in "bklmnprstv" for b in "aeiou" for c in ("da", "fe", "gi", "ho")]


def column(texts: list[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def remove(
    folder: Path, texts: list[str], keep: list[bool] | None = None, batch: int = 3, **config
) -> tuple[list[str | None], RepeatedText]:
    """Texts without repeats; None where they were not kept, or too little was left."""
    settings = RepeatedTextConfig.model_validate({"min_words": 1, "min_words_left": 0, **config})
    index = RepeatIndex(folder, settings)
    for first in range(0, len(texts), batch):
        some = column(texts[first : first + batch])
        index.add(Repeatable.of(some, segment(some), settings), len(some))
    kept = np.array(keep if keep is not None else [True] * len(texts), bool)
    removals = index.resolve(kept)
    left: list[str | None] = [None] * len(texts)
    total = RepeatedText()
    for first in range(0, len(texts), 2):
        numbers = np.array([n for n in range(first, min(first + 2, len(texts))) if kept[n]], np.int64)
        documents = pa.RecordBatch.from_arrays([column([texts[n] for n in numbers])], names=["text"])
        changed, gone = removals.remove(documents, numbers)
        total.add(gone)
        for number, text in zip(numbers.tolist(), changed.column("text").to_pylist(), strict=True):
            left[number] = None if removals.emptied[number] else text
    return left, total


def test_the_first_of_equal_paragraphs_stays(tmp_path):
    texts = ["Own one.\n\nA note that many have.", "A note that many have.\n\nOwn two.", "A note  that many have."]
    left, gone = remove(tmp_path, texts)
    assert left == [texts[0], "Own two.", texts[2]], "white space inside a line makes it another"
    assert (gone.documents, gone.passages, gone.top) == (1, 1, {"A note that many have.": 1})
    assert gone.characters == gone.bytes == len("A note that many have.\n\n")


def test_a_repeat_within_one_document_goes_too(tmp_path):
    assert remove(tmp_path, ["Äää.\n\nother\n\nÄää.\n\nÄää."])[0] == ["Äää.\n\nother"]
    left, gone = remove(tmp_path, ["Äää.\nother\nÄää."], unit="lines")
    assert left == ["Äää.\nother"] and (gone.characters, gone.bytes) == (5, 8)


def test_documents_that_do_not_stay_count_for_nothing(tmp_path):
    texts = ["The same note.", "The same note.\n\nOne.", "The same note.\n\nTwo."]
    assert remove(tmp_path, texts, [False, True, True])[0] == [None, texts[1], "Two."]


def test_a_document_with_too_little_left_is_emptied_and_an_untouched_one_is_not(tmp_path):
    texts = ["The same note.\n\nWith words of its own.", "The same note.\n\nFew words.", "One."]
    assert remove(tmp_path, texts, min_words_left=3)[0] == [texts[0], None, "One."]
    assert remove(tmp_path, texts, min_words_left=2)[0] == [texts[0], "Few words.", "One."]


def test_documents_that_are_not_compared_take_part_in_nothing(tmp_path):
    config = RepeatedTextConfig(min_words=1)
    texts = column(["The same note."])
    index = RepeatIndex(tmp_path, config)
    index.add(None, 1)
    index.add(Repeatable.of(texts, segment(texts), config), 1)
    removals = index.resolve(np.ones(2, bool))
    assert removals.passage_offsets.tolist() == [0, 0, 0] and not removals.emptied.any()
    assert not RepeatIndex(tmp_path, config).resolve(np.zeros(0, bool)).compares


def twin(texts: list[str], keep: list[bool], min_words_left: int) -> list[str | None]:
    seen, left = set(), []
    for text, kept in zip(texts, keep, strict=True):
        if not kept:
            left.append(None)
            continue
        stays = []
        paragraphs = text.split("\n\n")
        for paragraph in paragraphs:
            if paragraph not in seen:
                stays.append(paragraph)
                seen.add(paragraph)
        touched = len(stays) < len(paragraphs)
        words = sum(len(paragraph.split()) for paragraph in stays)
        left.append(None if touched and words < min_words_left else "\n\n".join(stays))
    return left


PARAGRAPHS = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=3).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([1, 2, 3, 1000]), st.integers(0, 4))
def test_what_is_left_is_as_brute_force_leaves_it(tmp_path_factory, data, at_once, min_words_left):
    texts = data.draw(st.lists(st.lists(PARAGRAPHS, min_size=1, max_size=6).map("\n\n".join), max_size=12))
    keep = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array_files, "AT_ONCE", at_once)
        left, gone = remove(tmp_path_factory.mktemp("index"), texts, keep, min_words_left=min_words_left)
    assert left == twin(texts, keep, min_words_left)
    everything = twin(texts, keep, 0)
    characters = sum(len(text) - len(left) for text, left in zip(texts, everything, strict=True) if left is not None)
    assert gone.characters == characters


def test_the_most_frequent_repeats_are_shown_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(repeats, "_TOP", 2)
    monkeypatch.setattr(removals, "_SHOWN_CHARACTERS", 5)
    _, gone = remove(tmp_path, ["aaaaaaaa\n\nb\n\nc\n\nd"] * 3 + ["aaaaaaaa\n\nc"])
    assert gone.top == {"aaaaa": 3, "c": 3}
    assert gone.describe()["top"] == [{"text": "aaaaa", "removed": 3}, {"text": "c", "removed": 3}]
    assert gone.passages == 10


LONG = " ".join(f"w{number}" for number in range(12))


def test_runs_of_words_go_from_the_middle_of_a_line_with_their_marks(tmp_path):
    texts = [f"First: {LONG}. Yes.", f"Then ({LONG.upper()}), no.", f"日本語、{LONG}。次の文", f"x {LONG[:-4]} y"]
    left, gone = remove(tmp_path, texts, unit="none", spans="remove", span_words=12)
    assert left == [texts[0], "Then no.", "日本語、次の文", texts[3]]
    assert (gone.passages, gone.spans, gone.span_documents, gone.span_words, gone.documents) == (0, 2, 2, 24, 2)
    left, gone = remove(tmp_path, texts, unit="none", spans="count", span_words=12)
    assert left == texts and (gone.spans, gone.span_words, gone.documents, gone.characters) == (2, 24, 0, 0)


def test_runs_of_words_in_fenced_code_stay(tmp_path):
    code = f"```python\n{LONG}\n```"
    texts = [f"One.\n\n{code}\n\n{LONG}", f"Two: {LONG}\n{code}\nand {LONG}."]
    left, gone = remove(tmp_path, texts, unit="none", spans="remove", span_words=12)
    assert left == [texts[0], f"Two:\n{code}\nand"]
    assert (gone.spans, gone.span_words) == (2, 24)


def test_paragraphs_and_runs_go_together_and_no_word_is_counted_twice(tmp_path):
    texts = [f"{LONG}\n\na b c d e f {LONG}", f"{LONG}\n\nown words\n\nx {LONG} y z"]
    config = {"spans": "remove", "span_words": 12}
    assert remove(tmp_path, texts, **config)[0] == [f"{LONG}\n\na b c d e f", "own words\n\nx y z"]
    assert remove(tmp_path, texts, **config, min_words_left=5)[0][1] is not None
    assert remove(tmp_path, texts, **config, min_words_left=6)[0] == [f"{LONG}\n\na b c d e f", None]


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([2, 10**6]))
def test_words_of_runs_and_paragraphs_are_those_brute_force_marks(tmp_path_factory, data, at_once):
    word = st.sampled_from("abc")
    paragraph = st.lists(word, min_size=1, max_size=16).map(" ".join)
    texts = data.draw(st.lists(st.lists(paragraph, min_size=1, max_size=4).map("\n\n".join), max_size=6))
    least = data.draw(st.integers(0, 12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array_files, "AT_ONCE", at_once)
        left, _ = remove(tmp_path_factory.mktemp("i"), texts, spans="remove", span_words=10, min_words_left=least)
    seen_paragraphs, seen_windows = set(), set()
    for text, found in zip(texts, left, strict=True):
        words = text.split()
        marked = [False] * len(words)
        at = 0
        for one in text.split("\n\n"):
            count = len(one.split())
            if one in seen_paragraphs:
                marked[at : at + count] = [True] * count
            seen_paragraphs.add(one)
            at += count
        for start in range(len(words) - 9):
            window = tuple(words[start : start + 10])
            if window in seen_windows:
                marked[start : start + 10] = [True] * 10
            seen_windows.add(window)
        stays = [word for word, gone in zip(words, marked, strict=True) if not gone]
        assert (found is None) == (any(marked) and len(stays) < least)
        assert found is None or found.split() == stays


# In the curation ----------------------------------------------------------------------------------------------------


def sentence(seed: int, words: int = 30) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words)) + "."


def text_domain(path: Path, texts: list[str], **settings) -> DomainConfig:
    path.write_text("".join(json.dumps({"id": f"{path.stem}-{n:03}", "text": t}) + "\n" for n, t in enumerate(texts)))
    return DomainConfig.model_validate(
        {
            "sources": [{"kind": "jsonl", "path": str(path)}],
            "thresholds": {"distinct_stop_words_min": None, "stop_word_ratio_min": None, "terminal_lines_min": None},
            **settings,
        }
    )


def run(out: Path, domains: dict[str, DomainConfig], **config) -> dict:
    config = {"boilerplate": {"max_share": 1}, **config}
    return curate(CurateConfig.model_validate(config), domains, out, seed=1, progress=QUIET)


def read(out: Path, domain: str) -> pl.DataFrame:
    return pl.read_parquet([*(out / domain).glob("train-*"), *(out / domain).glob("heldout-*")]).sort("id")


NOTE = "Mind that " + sentence(0) + " Ask someone@sairaala.fi for more."


def corpus(first: int, n: int = 20) -> list[str]:
    """Documents of two paragraphs of their own, every fourth with the note in between."""
    return [
        "\n\n".join([sentence(first + 2 * k, 60), *([NOTE] if k % 4 == 3 else []), sentence(first + 2 * k + 1, 60)])
        for k in range(n)
    ]


def test_a_note_that_many_documents_have_stays_in_the_first_domain_only(tmp_path):
    one, two = corpus(100), corpus(200)
    domains = {"a": text_domain(tmp_path / "a.jsonl", one), "b": text_domain(tmp_path / "b.jsonl", two)}
    result = run(tmp_path / "out", domains)
    note = NOTE.replace("someone@sairaala.fi", "<EMAIL>")
    a, b = (read(tmp_path / "out", name) for name in ("a", "b"))
    assert [note in text for text in a["text"]] == [False] * 3 + [True] + [False] * 16
    assert b["text"].to_list() == [text.replace("\n\n" + NOTE, "") for text in two]
    assert b["content_hash"].to_list() == content_hashes(column(b["text"].to_list())).tolist()
    for name, documents in (("a", 4), ("b", 5)):
        repeated = result["domains"][name]["repeated_text"]
        assert repeated["documents"] == repeated["passages"] == documents
        assert repeated["characters"] == documents * (len(note) + 2)
        assert repeated["top"] == [{"text": note[:200], "removed": documents}]
        step = next(one for one in result["domains"][name]["passes"] if one["name"] == "repeated_text")
        assert step["bytes_in"] - step["bytes_out"] == repeated["bytes"] and step["dropped"] == {}


def test_code_and_domains_that_say_no_are_left_alone(tmp_path):
    texts = corpus(300)
    domains = {
        name: text_domain(tmp_path / f"{name}.jsonl", [f"{name} begins.\n\n" + text for text in texts], **settings)
        for name, settings in {
            "a": {"repeated_text": False},
            "b": {"rules": "none", "thresholds": {}},
            "c": {"rules": "code", "thresholds": {"mean_line_length_max": None, "longest_line_max": None}},
        }.items()
    }
    result = run(tmp_path / "out", domains, near_duplicates={"threshold": 1})
    assert all(NOTE.split(".")[0] in text for name in domains for text in read(tmp_path / "out", name)["text"][3:20:4])
    assert all(one["name"] != "repeated_text" for name in domains for one in result["domains"][name]["passes"])
    off = run(tmp_path / "off", {"a": text_domain(tmp_path / "a.jsonl", texts)}, repeated_text={"unit": "none"})
    assert off["domains"]["a"]["repeated_text"]["passages"] == 0


def test_a_document_of_nothing_but_repeats_is_dropped_and_shown(tmp_path):
    texts = corpus(400)
    texts.append(texts[0].split("\n\n")[0] + "\n\n" + texts[8].split("\n\n")[1] + "\n\nOwn words.")
    result = run(tmp_path / "out", {"a": text_domain(tmp_path / "a.jsonl", texts)})
    domain = result["domains"]["a"]
    (step,) = (one for one in domain["passes"] if one["name"] == "repeated_text")
    assert {reason: n["documents"] for reason, n in step["dropped"].items()} == {"repeated_text:nothing_left": 1}
    assert domain["train"]["documents"] + domain["heldout"]["documents"] == 20
    assert sum(one["documents_kept"] for one in domain["sources"].values()) == 20
    dropped = pl.read_parquet(tmp_path / "out" / "a" / "dropped.parquet").filter(pl.col("drop_pass") == "repeated_text")
    assert dropped["id"].to_list() == ["a-020"] and "Own words." in dropped["text"][0]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_result_does_not_depend_on_threads_or_blocks(tmp_path, monkeypatch, threads):
    domains = {name: text_domain(tmp_path / f"{name}.jsonl", corpus(k, 60)) for k, name in ((500, "a"), (800, "b"))}
    run(tmp_path / "one", domains, threads=2)
    monkeypatch.setattr("aurora_m.corpus.streams.BLOCK_BYTES", 3000)
    monkeypatch.setattr(array_files, "AT_ONCE", 7)
    run(tmp_path / "two", domains, threads=threads)
    for path in sorted((tmp_path / "one").rglob("*.parquet")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path
