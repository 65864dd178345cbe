"""Near-duplicates from text to what is kept, against datatrove and rensa in the same run, and what is found.

    pip install --target PEERS datatrove rensa nltk spacy regex ftfy "xxhash<4"
    python benchmarks/deduplication.py --peers PEERS [--data ../shared/data/corpus] [--megabytes 12]

All make 112 permutations of word 5-grams in 14 bands of 8. Ours ends with a survivor for every cluster, every pair
joined verified by its n-grams; datatrove runs its four steps, from signatures to the removal of duplicates, on local
files; rensa, from text to a flag for every document, gets its words from `str.split` (in Japanese single characters)
and verifies nothing. CPU seconds of one thread: the best of three of ours, one run of the peers on fewer megabytes.

Recall is the share of planted copies found, with 2, 5 and 10 % of their words replaced, by 5-grams of words and by
13-grams of characters; precision and recall of all pairs are against the Jaccard overlap of every pair of documents,
compared by brute force at the threshold of 0.7.

Then repeated text: from texts to texts without the lines that came before. `added` is ours but for the segmentation,
which the curation has made already, and so are paragraphs and runs of 50 words. Beside it the three steps of the
SentenceDedup of datatrove: by lines, without and with its check (`min_doc_words`) of what is left, which ours always
makes, and by three sentences in a row. And what the settings take from the whole corpora.
"""

# The peers are installed elsewhere, if at all.
# pyright: reportMissingImports=false

import os

os.environ.update(POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1")

import argparse
import json
import logging
import platform
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from corpus_kernels import CONFIG, cpu_seconds, deduplicate, edited_copies, read, recall, size_of

from aurora_m.corpus.config import NearDuplicateConfig, RepeatedTextConfig
from aurora_m.corpus.dedup import content_hashes, minhash
from aurora_m.corpus.language_settings import available_languages, load_language
from aurora_m.corpus.removals import RepeatedText, RepeatIndex
from aurora_m.corpus.repeatable import Repeatable
from aurora_m.corpus.segments import segment

CHARACTERS = NearDuplicateConfig.model_validate({"shingle": "characters"})
EDITS = (0.02, 0.05, 0.10)
PEERS = {"lines": (False, 0), "lines, 50 left": (False, 50), "sentences": (True, 50)}  # by sentences, min_doc_words
ADDED: dict[str, dict] = {"paragraphs": {}, "spans": {"unit": "none", "spans": "remove"}}
LINES = {"unit": "lines", "min_words": 1, "min_words_left": 50}
SETTINGS: dict[str, dict] = {
    f"{unit} {words}": {"unit": unit, "min_words": words} for unit in ("paragraphs", "lines") for words in (10, 20, 40)
}
SETTINGS |= {f"spans {words}": {"unit": "none", "spans": "remove", "span_words": words} for words in (50, 100)}
PAIRED_DOCUMENTS = 300


def first_megabytes(texts: pa.LargeStringArray, megabytes: float) -> pa.LargeStringArray:
    ends = np.frombuffer(texts.buffers()[1], np.int64, len(texts) + 1)
    return texts.slice(0, max(1, int(np.searchsorted(ends, megabytes * 1e6))))


def ours(texts: pa.LargeStringArray, config: NearDuplicateConfig = CONFIG) -> int:
    """Documents kept."""
    signatures = minhash(segment(texts), config, 0, texts=texts)
    return int(deduplicate(content_hashes(texts), signatures, config).keep.sum())


def without_repeats(
    texts: pa.LargeStringArray, settings: dict[str, Any], keep: np.ndarray | None = None
) -> tuple[pa.LargeStringArray, RepeatedText]:
    """Texts without what is repeated in them, in batches as the curation has them, and what went."""
    config = RepeatedTextConfig.model_validate({"min_words_left": 0, **settings})
    keep = np.ones(len(texts), bool) if keep is None else keep
    batches = [(first, texts.slice(first, 1000)) for first in range(0, len(texts), 1000)]
    with tempfile.TemporaryDirectory() as folder:
        index = RepeatIndex(Path(folder), config)
        for _, batch in batches:
            index.add(Repeatable.of(batch, segment(batch), config), len(batch))
        removals, total, left = index.resolve(keep), RepeatedText(), []
        for first, batch in batches:
            numbers = first + np.flatnonzero(keep[first : first + len(batch)])
            kept = pa.RecordBatch.from_arrays([batch.take(pa.array(numbers - first))], names=["text"])
            changed, gone = removals.remove(kept, numbers)
            left.append(changed.column("text"))
            total.add(gone)
    return pa.concat_arrays(left), total


def rensa_dedup(texts: list[str], characters: bool) -> int:
    """Documents without a flag."""
    import rensa

    def shingles(text: str) -> list[str]:
        words = [c for c in text.lower() if not c.isspace()] if characters else text.lower().split()
        return [" ".join(words[i : i + CONFIG.ngram]) for i in range(max(1, len(words) - CONFIG.ngram + 1))]

    places = CONFIG.bands * CONFIG.rows
    matrix = rensa.RMinHash.digest_matrix_from_token_sets(map(shingles, texts), places, 42)
    index = rensa.RMinHashLSH(CONFIG.threshold, places, CONFIG.bands)
    return len(texts) - sum(index.query_duplicate_flags_matrix_one_shot(matrix))


def datatrove_dedup(texts: list[str], lang: str, folder: Path) -> int:
    """Documents its four steps leave."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
    )
    from loguru import logger

    logger.disable("datatrove")
    config = MinhashConfig(n_grams=CONFIG.ngram, num_buckets=CONFIG.bands, hashes_per_bucket=CONFIG.rows)
    signatures, buckets, removed = (str(folder / name) for name in ("signatures", "buckets", "removed"))
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
    MinhashDedupSignature(signatures, config=config, language=lang).run(iter(documents))
    for bucket in range(CONFIG.bands):
        MinhashDedupBuckets(signatures, buckets, config=config).run(None, bucket, CONFIG.bands)
    MinhashDedupCluster(buckets, removed, config=config).run(None)
    return sum(1 for _ in MinhashDedupFilter(removed).run(iter(documents)))


def datatrove_lines(texts: list[str], lang: str, folder: Path, sentences: bool, min_words: int) -> list[str]:
    """Texts without repeated lines, or runs of three sentences, of documents that keep so many words."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import SentenceDedupFilter, SentenceDedupSignature, SentenceFindDedups
    from datatrove.pipeline.dedup.sentence_dedup import SentDedupConfig
    from loguru import logger

    logger.disable("datatrove")
    count = 3 if sentences else 1
    config = SentDedupConfig(n_sentences=count, split_sentences=sentences, min_doc_words=min_words, min_num_sentences=0)
    signatures, found = str(folder / "signatures"), str(folder / "found")
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
    SentenceDedupSignature(signatures, config=config, language=lang).run(iter(documents))
    SentenceFindDedups(signatures, found, config=config).run()
    return [document.text for document in SentenceDedupFilter(found, config=config, language=lang).run(iter(documents))]


def timed_once(work) -> tuple[float, Any]:
    started = time.process_time()
    kept = work()
    return time.process_time() - started, kept


def against_brute_force(texts: pa.LargeStringArray) -> tuple[float, float, int]:
    """Precision and recall of the joined pairs, and how many pairs truly overlap."""
    some = [text for text in texts.to_pylist() if 1000 < len(text) < 6000][:PAIRED_DOCUMENTS]
    some += edited_copies(some[::2], 0.01) + edited_copies(some[1::2], 0.04)
    column = pa.array(some, pa.large_string())
    words = segment(column)
    signatures = minhash(words, CONFIG, 0)
    sets = [
        set(signatures.shingles[a:b].tolist()) for a, b in zip(signatures.offsets, signatures.offsets[1:], strict=False)
    ]
    alike = {
        (i, j)
        for i, j in combinations(range(len(sets)), 2)
        if len(sets[i] & sets[j]) >= CONFIG.threshold * len(sets[i] | sets[j])
    }
    survivor = deduplicate(content_hashes(column), signatures).survivor
    found = {(i, j) for i, j in combinations(range(len(sets)), 2) if survivor[i] == survivor[j]}
    both = len(alike & found)
    return both / max(1, len(found)), both / max(1, len(alike)), len(alike)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/corpus"))
    parser.add_argument("--peers", type=Path, help="folder the peers are installed in")
    parser.add_argument("--megabytes", type=float, default=12)
    parser.add_argument("--peer-megabytes", type=float, default=1.5)
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path.append(str(arguments.peers))
    logging.disable(logging.CRITICAL)
    result = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "date": time.strftime("%Y-%m-%d")}
    languages: dict[str, dict] = {}
    print(f"{'':<5}{'MB/s ours':>10}{'rensa':>8}{'ratio':>7}{'datatrove':>11}{'ratio':>7}", end="")
    print(
        "".join(f"{f'found {share:.0%}':>11}" for share in EDITS) + f"{'precision':>11}{'recall':>8}{'pairs':>7}",
        end="",
    )
    print(f"{'characters':>12}" + "".join(f"{f'found {share:.0%}':>11}" for share in EDITS))
    for lang in available_languages():
        path = arguments.data / f"{lang}.jsonl.zst"
        if not path.exists():
            print(f"{lang:<5}skipped: {path} does not exist")
            continue
        row = measure(read(path, arguments.megabytes), lang, arguments.peer_megabytes)
        languages[lang] = row
        print(f"{lang:<5}{row['ours']:>10.1f}", end="")
        for peer, width in (("rensa", 8), ("datatrove", 11)):
            if speed := row.get(peer):
                print(f"{speed:>{width}.2f}{row['ours'] / speed:>6.1f}x", end="")
            else:
                print(f"{'–':>{width}}{'–':>7}", end="")
        print("".join(f"{row['found'][str(share)]:>11.2f}" for share in EDITS), end="")
        print(f"{row['precision']:>11.3f}{row['recall']:>8.3f}{row['pairs']:>7}{row['characters']:>12.1f}", end="")
        print("".join(f"{row['found_by_characters'][str(share)]:>11.2f}" for share in EDITS), flush=True)
    repeated = repeated_text(arguments.data, arguments.megabytes, arguments.peer_megabytes)
    print(
        "RESULT",
        json.dumps({**result, "config": CONFIG.model_dump(), "languages": languages, "repeated_text": repeated}),
    )


def measure(texts: pa.LargeStringArray, lang: str, peer_megabytes: float) -> dict:
    row: dict = {"ours": round(size_of(texts) / cpu_seconds(lambda: ours(texts)), 1)}
    few = first_megabytes(texts, peer_megabytes)
    listed = few.to_pylist()
    megabytes = sum(len(text.encode()) for text in listed) / 1e6
    if find_spec("rensa"):
        characters = load_language(lang).words == "characters"
        seconds, _ = timed_once(lambda: rensa_dedup(listed, characters))
        row["rensa"] = round(megabytes / seconds, 2)
    if find_spec("datatrove"):
        with tempfile.TemporaryDirectory() as folder:
            try:
                seconds, _ = timed_once(lambda: datatrove_dedup(listed, lang, Path(folder)))
                row["datatrove"] = round(megabytes / seconds, 2)
            except ImportError as error:  # its segmenter of this language is not installed
                row["datatrove_missing"] = str(error)[:80]
    row["characters"] = round(size_of(few) / cpu_seconds(lambda: ours(few, CHARACTERS)), 1)
    row["found"] = {str(share): round(recall(texts, share), 3) for share in EDITS}
    row["found_by_characters"] = {str(share): round(recall(texts, share, config=CHARACTERS), 3) for share in EDITS}
    precision, found, pairs = against_brute_force(texts)
    return row | {"precision": round(precision, 4), "recall": round(found, 4), "pairs": pairs}


def repeated_text(data: Path, megabytes: float, peer_megabytes: float) -> dict[str, dict]:
    """Prints and returns speeds and what is taken, by corpus."""
    print(f"\n{'':<5}{'MB/s ours':>10}{'added':>8}" + "".join(f"{name:>12}" for name in ADDED), end="")
    print("".join(f"{peer:>15}{'ratio':>7}" for peer in PEERS), end="")
    print("  % of characters taken:" + "".join(f"{name:>15}" for name in SETTINGS))
    table = {}
    for name in [*available_languages(), "code"]:
        if not (path := data / f"{name}.jsonl.zst").exists():
            continue
        row: dict = {}
        table[name] = row
        texts = read(path, megabytes)
        row["ours"] = round(size_of(texts) / cpu_seconds(lambda texts=texts: without_repeats(texts, LINES)), 1)
        seconds = cpu_seconds(lambda texts=texts: [segment(texts.slice(n, 1000)) for n in range(0, len(texts), 1000)])
        row["added"] = round(1 / (1 / row["ours"] - seconds / size_of(texts)), 1)
        for one, settings in ADDED.items():
            added = cpu_seconds(lambda texts=texts, settings=settings: without_repeats(texts, settings)) - seconds
            row[f"added {one}"] = round(size_of(texts) / added, 1)
        few = first_megabytes(texts, peer_megabytes)
        for peer, (sentences, min_words) in PEERS.items():
            if find_spec("datatrove") and (name != "code" or not (sentences or min_words)):
                # Lines need no segmenter, but it wants to have one.
                row[peer] = lines_speed(few, name if sentences or min_words else "en", sentences, min_words)
        whole = read(path, None)
        keep = deduplicate(content_hashes(whole), minhash(segment(whole), CONFIG, 0)).keep
        characters = sum(len(text) for text, kept in zip(whole.to_pylist(), keep, strict=True) if kept)
        row["taken"] = {
            one: round(100 * without_repeats(whole, settings, keep)[1].characters / characters, 2)
            for one, settings in SETTINGS.items()
        }
        print(f"{name:<5}{row['ours']:>10.1f}{row['added']:>8.1f}", end="")
        print("".join(f"{row[f'added {one}']:>12.1f}" for one in ADDED), end="")
        for peer in PEERS:
            speed = row.get(peer)
            print(f"{speed:>15.2f}{row['ours'] / speed:>6.0f}x" if speed else f"{'–':>15}{'–':>7}", end="")
        print(" " * 24 + "".join(f"{share:>15.2f}" for share in row["taken"].values()), flush=True)
    return table


def lines_speed(texts: pa.LargeStringArray, lang: str, sentences: bool, min_words: int) -> float | None:
    """Megabytes per CPU second of datatrove; None where its segmenter of the language is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            seconds, _ = timed_once(
                lambda: datatrove_lines(texts.to_pylist(), lang, Path(folder), sentences, min_words)
            )
        except ImportError:
            return None
    return round(size_of(texts) / seconds, 3)


if __name__ == "__main__":
    main()
