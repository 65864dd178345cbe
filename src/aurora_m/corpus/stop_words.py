"""Stop words out of a corpus: the words that stand in the most documents, whatever these are about.

Function words are in nearly every document of every source, words of a subject in many documents of one. So words are
ranked by the geometric mean over the sources of the share of documents that have them (a word that one source lacks
falls far). Where every Han or kana character is a word, runs of up to four characters in a row are ranked, but none
with katakana, which write borrowed words and names.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import yaml

from ..workspace import DataError, Progress, kernel
from .document_files import read_documents
from .documents import text_bytes
from .engine import ordered_threads
from .hashing import fold
from .language_settings import load_language
from .phrases import count_phrases
from .segments import Segments, segment, text_buffers
from .word_counts import WordCounts

LONGEST_RUN = 4
_KATAKANA = re.compile("[\u30a0-\u30ff]")
_MOST_SOURCES = 32
_FEWEST_DOCUMENTS = 50
_SAMPLE_BYTES = 20_000_000


@kernel
def find_runs(word_offsets, word_start, word_end, word_characters, longest, word_hash, run_offsets, begins, ends, keys):
    """Runs of 1 to `longest` words of a single character each that nothing parts: first and last word, and a key."""
    runs = 0
    for text in range(len(word_offsets) - 1):
        run_offsets[text] = runs
        for first in range(word_offsets[text], word_offsets[text + 1]):
            key = np.uint64(0)
            for last in range(first, min(first + longest, word_offsets[text + 1])):
                # Single letters of alphabets take one byte or two.
                if word_characters[last] != 1 or word_end[last] - word_start[last] < 3:
                    break
                if last > first and word_start[last] != word_end[last - 1]:
                    break
                key = fold(key, word_hash[last])
                begins[runs], ends[runs], keys[runs] = first, last, key
                runs += 1
    run_offsets[len(word_offsets) - 1] = runs


@dataclass(frozen=True)
class StopWords:
    """Words, most widespread first, with the share of documents that have each."""

    words: list[str]
    document_shares: list[float]
    documents: int
    sources: int
    coverage: float
    """Of all words of the corpus, the share that is in the list (in its first 20 MB)."""

    def to_yaml(self) -> str:
        """`stop_words: [...]`, as files of languages and `domains.<name>.word_lists` have it."""
        head = f"# {len(self.words)} words learned from {self.documents:,} documents of {self.sources} sources.\n"
        listed = yaml.safe_dump(
            {"stop_words": self.words}, allow_unicode=True, default_flow_style=None, width=118, sort_keys=False
        )
        return head + listed

    def compare(self, lang: str) -> dict[str, float | int]:
        """How far the list agrees with that of a language: words of both, and their share of either list."""
        shipped = set(load_language(lang).stop_words)
        both = len(shipped & set(self.words))
        return {"both": both, "of_learned": both / max(len(self.words), 1), "of_shipped": both / len(shipped)}


def learn_stop_words(
    paths: Sequence[str],
    count: int = 120,
    *,
    limit: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> StopWords:
    """Learns stop words from documents of one language.

    Args:
        paths: as `read_documents` takes them; the documents' own `source` counts as theirs.
        count: how many words.
        limit: documents of each path at most, the first.

    Raises:
        DataError: a path holds no documents, or there are fewer than 50.
    """
    progress = progress or Progress(quiet=True)
    sources: dict[str, WordCounts] = {}
    sample: list[Segments] = []
    sampled = 0
    by_characters: bool | None = None
    with ordered_threads(threads) as in_order, progress.task("read", None, "bytes") as task:
        for path in paths:
            for batch in read_documents(path, in_order, limit):
                for source, texts in _by_source(batch):
                    words = segment(texts)
                    if by_characters is None:
                        by_characters = _are_characters(words)
                    name = source if source in sources or len(sources) < _MOST_SOURCES else next(iter(sources))
                    _count(sources.setdefault(name, WordCounts()), texts, words, by_characters)
                    if sampled < _SAMPLE_BYTES:
                        sample.append(words)
                        sampled += text_buffers(texts)[0].nbytes
                task.advance(text_bytes(batch), f"{sum(one.texts for one in sources.values()):,} documents")
    documents = sum(one.texts for one in sources.values())
    if documents < _FEWEST_DOCUMENTS:
        raise DataError(
            f"{', '.join(paths)}: {documents} documents, expected at least {_FEWEST_DOCUMENTS}; what is in most of a "
            "few documents is no word of the language alone"
        )
    spelled, shares = _rank(list(sources.values()))
    if by_characters:
        spelled, shares = _without_parts(spelled[: 4 * count], shares[: 4 * count])
    chosen = tuple(spelled[:count])
    covered = sum(int(count_phrases(words, chosen)[:, 0].sum()) for words in sample)
    coverage = covered / max(sum(int(words.count("words").sum()) for words in sample), 1)
    return StopWords(list(chosen), shares[:count], documents, len(sources), round(coverage, 4))


def _by_source(batch: pa.RecordBatch) -> list[tuple[str, pa.LargeStringArray]]:
    names = batch.column("source")
    different = names.unique().to_pylist()
    if len(different) == 1:
        return [(different[0], batch.column("text"))]
    values = np.array(names.to_pylist(), object)
    return [(name, batch.column("text").filter(pa.array(values == name))) for name in different]


def _are_characters(words: Segments) -> bool:
    """Whether most words are single Han or kana characters."""
    single = (words.word_characters == 1) & (words.word_end - words.word_start >= 3)
    return bool(single.mean() > 0.5) if len(single) else False


def _count(counts: WordCounts, texts: pa.LargeStringArray, words: Segments, by_characters: bool) -> None:
    data, offsets = text_buffers(texts)
    starts = np.repeat(offsets[:-1], np.diff(words.word_offsets))
    begins, ends = starts + words.word_start, starts + words.word_end
    if not by_characters:
        counts.add(data, words.word_offsets, words.word_hash, begins, ends)
        return
    most = LONGEST_RUN * len(words.word_hash)
    first, last = np.empty(most, np.int64), np.empty(most, np.int64)
    run_keys = np.empty(most, np.uint64)
    offsets = np.empty(len(words.word_offsets), np.int64)
    find_runs(
        words.word_offsets, words.word_start, words.word_end, words.word_characters, LONGEST_RUN,
        words.word_hash, offsets, first, last, run_keys,
    )  # fmt: skip
    first, last = first[: offsets[-1]], last[: offsets[-1]]
    counts.add(data, offsets, run_keys[: offsets[-1]], begins[first], ends[last])


def _rank(sources: list[WordCounts]) -> tuple[list[str], list[float]]:
    """Words in lower case, most widespread first, and the share of all documents that have them. Only with letters."""
    keys = np.unique(np.concatenate([one.keys for one in sources]))
    spread, documents = np.zeros(len(keys)), np.zeros(len(keys), np.int64)
    for one in sources:
        found = np.zeros(len(keys), np.int64)
        found[np.searchsorted(keys, one.keys)] = one.documents
        spread += np.log((found + 0.5) / (one.texts + 1))
        documents += found
    # The best thousands are enough: a list has a hundred words or two.
    order = np.lexsort((keys, -spread))[:4000]
    spelling: dict[int, str] = {}
    for one in sources:
        places = np.flatnonzero(np.isin(one.keys, keys[order]))
        spelling = dict(zip(one.keys[places].tolist(), one.spelling(places), strict=True)) | spelling
    total = sum(one.texts for one in sources)
    ranked = [(spelling[int(keys[at])].lower(), round(int(documents[at]) / total, 4)) for at in order.tolist()]
    lettered = [
        (word, share)
        for word, share in ranked
        if not any(character.isdigit() for character in word) and not _KATAKANA.search(word)
    ]
    return [word for word, _ in lettered], [share for _, share in lettered]


def _without_parts(words: list[str], shares: list[float]) -> tuple[list[str], list[float]]:
    """The runs of characters without those that hardly ever stand outside of a longer one of the list."""
    share_of = dict(zip(words, shares, strict=True))
    kept = [
        (word, share)
        for word, share in share_of.items()
        if not any(len(other) > len(word) and word in other and share_of[other] > 0.95 * share for other in share_of)
    ]
    return [word for word, _ in kept], [share for _, share in kept]
