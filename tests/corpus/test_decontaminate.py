"""Evaluation texts in documents: planted ones are found wherever they stand, and as a slow twin finds them."""

import json
import random
import unicodedata
from itertools import islice
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_m.corpus import CurateConfig, DecontaminateConfig, DomainConfig, curate
from aurora_m.corpus.decontaminate import EvaluationIndex, Overlap, load_evaluation_index
from aurora_m.corpus.evaluation_sets import EvaluationSet
from aurora_m.corpus.segments import segment
from aurora_m.workspace import DataError, Progress

GENERATOR = random.Random(5)
WORDS = ["".join(GENERATOR.choices("abcdefghijklmnoprstuvw", k=5)) for _ in range(4000)]
QUESTION = "Natalia sold clips to some of her friends in April, and then she sold half as many clips in May"
JAPANESE = "主に子ども向けのもので、イラストのついた物語が書かれているものはどれですか教えてください"


def noise(seed: int, words: int = 60) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def index(*sets: list[str], **config) -> EvaluationIndex:
    """Sets named a, b, ... of items of one text each."""
    named = [
        EvaluationSet(chr(97 + number), texts, list(range(len(texts))), len(texts)) for number, texts in enumerate(sets)
    ]
    return EvaluationIndex(named, DecontaminateConfig.model_validate(config))


def find(found_in: EvaluationIndex, *documents: str) -> list[Overlap]:
    texts = pa.array(documents, pa.large_string())
    return found_in.find(texts, segment(texts))


def test_a_planted_run_is_found_with_its_item_and_its_length():
    evaluation = index([noise(1), QUESTION, noise(2)])
    documents = [noise(n) for n in range(10, 14)]
    documents[2] = f"{noise(20)} {' '.join(QUESTION.split()[2:17])} {noise(21)}"
    (overlap,) = find(evaluation, *documents)
    assert overlap.row == 2
    assert (overlap.sets["a"].items, overlap.sets["a"].longest_words) == ({1}, 15)


def test_thirteen_words_are_found_at_either_end_and_twelve_are_not():
    evaluation = index([QUESTION])
    words = QUESTION.split()
    for run in (words[:13], words[3:16], words[-13:]):
        for document in (run, [*run, noise(1)], [noise(1), *run], [noise(1), *run, noise(2)]):
            assert find(evaluation, " ".join(document)), document
    for run in (words[:12], words[-12:]):
        assert not find(evaluation, " ".join([noise(1), *run, noise(2)]))


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda text: text.replace(" ", "  \n> "),
        lambda text: "*" + text.replace(" ", "*, *").replace(",,", " --") + "*",
        lambda text: text.replace("a", "a\u00ad"),  # a soft hyphen
    ],
)
def test_case_punctuation_and_white_space_hide_nothing(change):
    assert find(index([QUESTION]), change(QUESTION))


def test_japanese_is_measured_in_characters():
    evaluation = index([JAPANESE])
    bare = JAPANESE.replace("、", "")
    assert find(evaluation, f"これは{bare[:26]}東京")[0].sets["a"].longest_words == 26
    assert not find(evaluation, f"これは{bare[:25]}東京")


def test_numbers_weigh_half_so_that_rows_of_digits_are_no_contamination():
    digits = "0 1 2 3 4 5 6 7 8 9 A B C D E F"
    assert not find(index([f"hexadecimal {digits} are what numbers are made of here as everyone knows"]), digits)


def test_short_texts_are_found_as_a_whole_and_shorter_ones_are_counted_as_unused():
    short, eight, tiny = "one or two more words to be had here", "these words are eight and so they count", "yes"
    evaluation = index([short, eight, tiny, f"{short} too"])
    (overlap,) = find(evaluation, f"{noise(1)} {short.title()} {noise(2)} {eight}")
    assert (overlap.sets["a"].items, overlap.sets["a"].longest_words) == ({0, 1}, 9)
    assert not find(evaluation, f"{noise(1)} {short.rsplit(' ', 1)[0]} {noise(2)}")
    assert find(evaluation, f"{short} too")[0].sets["a"].items == {0, 3}
    assert evaluation.describe({})["sets"][0]["texts_too_short"] == 1


def test_a_text_of_two_sets_counts_for_both_and_the_first_is_the_reason():
    (overlap,) = find(index([noise(1), noise(2)], [], [noise(3), noise(2)]), noise(2))
    assert list(overlap.sets) == ["a", "c"]
    assert overlap.sets["a"].items == overlap.sets["c"].items == {1}


def test_more_hits_than_there_was_room_for_are_all_found():
    text = noise(1, 9000)
    (overlap,) = find(index([text]), text)
    assert overlap.sets["a"].longest_words == 9000


# The slow twin: words as tuples, every run written out.


def weight(word: str) -> int:
    return (
        1 if unicodedata.category(word[0]) == "Nd" or unicodedata.name(word[0]).startswith(("CJK", "HIRAGANA")) else 2
    )


def run_at(words: list[str], begin: int, least: int) -> tuple[str, ...] | None:
    for end in range(begin + 1, len(words) + 1):
        if sum(map(weight, words[begin:end])) >= least:
            return tuple(words[begin:end])
    return None


def slow(texts: list[list[str]], document: list[str], ngram: int, whole: int) -> set[int]:
    found = set()
    runs = {run_at(document, begin, 2 * ngram) for begin in range(len(document))} - {None}
    for item, words in enumerate(texts):
        total = sum(map(weight, words))
        if total >= 2 * ngram:
            if any(run_at(words, begin, 2 * ngram) in runs for begin in range(len(words))):
                found.add(item)
        elif total >= 2 * min(whole, ngram) and any(
            document[begin : begin + len(words)] == words for begin in range(len(document))
        ):
            found.add(item)
    return found


word_lists = st.lists(st.sampled_from(["on", "yö", "7", "42", "京", "の", "कख"]), max_size=24)


@settings(deadline=None, max_examples=300)
@given(st.lists(word_lists, max_size=5), st.lists(word_lists, max_size=4), st.integers(5, 8), st.integers(3, 9))
def test_the_same_as_the_slow_twin(texts, documents, ngram, whole):
    evaluation = index([" ".join(words) for words in texts], ngram=ngram, whole=whole)
    found = {one.row: one.sets["a"].items for one in find(evaluation, *(" ".join(words) for words in documents))}
    expected = {row: slow(texts, words, ngram, whole) for row, words in enumerate(documents)}
    assert found == {row: items for row, items in expected.items() if items}


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(max_size=200), max_size=4), st.text(max_size=200))
def test_arbitrary_text_does_no_harm(documents, text):
    find(index([text, QUESTION], ngram=5, whole=3), *documents)


# In a run


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_curation_counts_by_set_and_source_and_a_domain_may_opt_out(tmp_path):
    planted = [f"{noise(n)} {QUESTION} {noise(n + 50)}" for n in range(3)]
    rows = [
        {"id": f"d{n}", "text": text, "source": "web"} for n, text in enumerate([*planted, *map(noise, range(90, 99))])
    ]
    path = write(tmp_path / "docs.jsonl", rows)
    against = [
        {"name": "gsm", "path": write(tmp_path / "gsm.jsonl", [{"q": QUESTION}, {"q": noise(7)}]), "fields": ["q"]},
        {"name": "clean", "path": write(tmp_path / "clean.jsonl", [{"q": noise(8)}, {"q": "no"}]), "fields": ["q"]},
    ]
    source = {"kind": "jsonl", "path": path}
    domains = {
        "web": DomainConfig.model_validate({"rules": "none", "sources": [source]}),
        "train": DomainConfig.model_validate({"rules": "none", "decontaminate": False, "sources": [source]}),
    }
    config = CurateConfig.model_validate({"decontaminate": {"against": against}})
    result = curate(config, domains, tmp_path / "out", seed=1, progress=Progress(quiet=True))

    (step,) = (one for one in result["domains"]["web"]["passes"] if one["name"] == "decontaminate")
    assert step["dropped"]["contaminated:gsm"]["documents"] == 3
    assert "decontaminate" not in {one["name"] for one in result["domains"]["train"]["passes"]}
    dropped = pl.read_parquet(tmp_path / "out" / "web" / "dropped.parquet")
    assert sorted(dropped["id"]) == ["d0", "d1", "d2"]
    words = len(QUESTION.split())
    assert result["decontamination"] == {
        "sets": [
            {"name": "gsm", "items": 2, "texts": 2, "texts_too_short": 0, "items_found": 1, "documents": 3,
             "longest_words": words},
            {"name": "clean", "items": 2, "texts": 2, "texts_too_short": 1, "items_found": 0, "documents": 0,
             "longest_words": 0},
        ],
        "overlaps": [
            {"set": "gsm", "domain": "web", "source": "web", "documents": 3, "items": 1, "longest_words": words}
        ],
    }  # fmt: skip


def test_a_missing_set_ends_it_before_work_begins(tmp_path):
    against = [{"name": "gsm", "path": str(tmp_path / "no.jsonl"), "fields": ["q"]}]
    domain = DomainConfig.model_validate({"sources": [{"kind": "jsonl", "path": write(tmp_path / "a.jsonl", [])}]})
    config = CurateConfig.model_validate({"decontaminate": {"against": against}})
    with pytest.raises(DataError, match="evaluation set 'gsm': .* does not exist"):
        curate(config, {"d": domain}, tmp_path / "out", seed=1, progress=Progress(quiet=True))


@pytest.mark.real_data
def test_technical_documents_share_nothing_with_evaluation_sets(shared_data):
    """No false alarms: these corpora hold none of the sets, as far as anyone knows."""
    folder = shared_data / "eval"
    against = [
        {"name": "gsm8k", "path": str(folder / "gsm8k/test.jsonl"), "fields": ["question", "answer"]},
        {"name": "humaneval", "path": str(folder / "humaneval/HumanEval.jsonl.gz"), "fields": ["prompt"]},
        {
            "name": "jcommonsenseqa",
            "path": str(folder / "jglue/jcommonsenseqa-v1.3/valid-v1.3.json"),
            "fields": ["question"],
        },
    ]
    evaluation = load_evaluation_index(DecontaminateConfig.model_validate({"against": against}))
    assert evaluation is not None
    for lang in ("ja", "code"):
        with zstandard.open(shared_data / "corpus" / f"{lang}.jsonl.zst", "rt", encoding="utf-8") as lines:
            texts = pa.array([json.loads(line)["text"] for line in islice(lines, 600)], pa.large_string())
        assert evaluation.find(texts, segment(texts)) == []
