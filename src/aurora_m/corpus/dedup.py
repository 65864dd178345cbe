"""Exact duplicates by content hash, near-duplicates by MinHash and banding (Broder 1997; Leskovec et al., ch. 3).

Two documents are candidates when they share a band of their signatures, and are joined when their sets of n-grams
overlap by `threshold` or more (Jaccard, of the sets themselves, not estimated). Joined documents form clusters, and of
every cluster exactly one stays: that of the earliest domain, then of the highest score, then of the smallest id.
Nothing depends on the order in which documents were added.
"""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from . import kernels, sequences
from .array_files import recurring
from .config import NearDuplicateConfig
from .segments import Segments, text_buffers
from .unicode_tables import unicode_tables

KEPT, EXACT, NEAR, ABSENT = 0, 1, 2, 3
REASONS = (None, "exact_duplicate", "near_duplicate", None)
_MOST_LEADERS = 256
_MOST_AT_ONCE = 1024


def content_hashes(texts: pa.LargeStringArray | pa.ChunkedArray) -> np.ndarray:
    """64-bit hashes (uint64[n]) of texts in lower case with white space folded: equal for exact duplicates."""
    data, offsets = text_buffers(texts)
    hashes = np.zeros(len(offsets) - 1, np.uint64)
    kernels.content_hash(data, offsets, *unicode_tables(), hashes)
    return hashes


@dataclass(frozen=True)
class Signatures:
    """MinHash of n documents, and the shingles it is of: what candidate pairs are verified by.

    `values` is uint32 (n, bands * rows); the shingles of document i are `shingles[offsets[i] : offsets[i + 1]]`, uint32
    hashes in the order of the text, repeated where it repeats itself.
    """

    values: np.ndarray
    shingles: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def part(self, start: int, end: int) -> "Signatures":
        """Those of documents `start` up to `end`."""
        offsets = self.offsets[start : end + 1]
        return Signatures(self.values[start:end], self.shingles[offsets[0] : offsets[-1]], offsets - offsets[0])


def minhash(
    segments: Segments,
    config: NearDuplicateConfig,
    seed: int,
    documents: np.ndarray | None = None,
    texts: pa.LargeStringArray | None = None,
) -> Signatures:
    """MinHash signatures of n-grams of words or characters.

    Args:
        documents: numbers of the texts wanted (int64); all where None.
        texts: those wanted, as the segments are of; only needed for characters.
    """
    if documents is None:
        documents = np.arange(len(segments))
    wanted = np.ascontiguousarray(documents, np.int64)
    item_offsets, items = segments.word_offsets, segments.word_hash
    if config.shingle == "characters":
        assert texts is not None and len(texts) == len(wanted), "characters are those of the texts"
        item_offsets, items = _characters(texts, segments, wanted)
        wanted = np.arange(len(wanted))
    multipliers, addends = _permutations(config.bands * config.rows, seed)
    values = np.empty((len(wanted), len(multipliers)), np.uint32)
    offsets = np.empty(len(wanted) + 1, np.int64)
    sequences.count_shingles(item_offsets, wanted, config.ngram, offsets)
    shingles = np.empty(offsets[-1], np.uint32)
    sequences.minhash(item_offsets, items, wanted, config.ngram, multipliers, addends, offsets, shingles, values)
    return Signatures(values, shingles, offsets)


def _characters(texts: pa.LargeStringArray, segments: Segments, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (int64, n + 1) and code points (uint64) of the characters of the words of texts."""
    data, offsets = text_buffers(texts)
    begins = np.zeros(len(documents) + 1, np.int64)
    points = np.empty(int(offsets[-1] - offsets[0]), np.uint64)
    kernels.find_characters(
        data, offsets, *unicode_tables(), documents, segments.word_offsets, segments.word_start, segments.word_end,
        begins, points,
    )  # fmt: skip
    return begins, points[: begins[-1]]


@lru_cache(maxsize=8)
def _permutations(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(seed))
    multipliers, addends = generator.integers(0, 1 << 32, (2, count), np.uint32)
    return multipliers | np.uint32(1), addends


@dataclass(frozen=True)
class Duplicates:
    """What is to become of every document, by its number in the order of adding."""

    kind: np.ndarray
    """uint8[n]: KEPT, EXACT, NEAR, or ABSENT: it was gone before."""
    survivor: np.ndarray
    """int64[n]: the document that stays in its place, which names the cluster; its own number where it stays itself."""
    compared: int = 0
    """Candidate pairs that were verified by their shingles,"""
    joined: int = 0
    """and those of them that were joined."""

    @property
    def keep(self) -> np.ndarray:
        """bool[n]"""
        return self.kind == KEPT

    @property
    def cluster_size(self) -> np.ndarray:
        """int32[n]: documents in the cluster of each, itself included."""
        return np.bincount(self.survivor, minlength=len(self.survivor)).astype(np.int32)[self.survivor]

    def describe(self) -> dict[str, int]:
        """Figures for curation.json: clusters are of two documents and more, the largest by its documents.

        `largest_near` counts what is no exact copy of another, so what may have been chained together.
        """
        sizes = np.bincount(self.survivor, minlength=1)
        near = np.bincount(self.survivor[self.kind == NEAR], minlength=1)
        return {
            "documents": int((self.kind != ABSENT).sum()),
            "clusters": int((sizes > 1).sum()),
            "largest": int(sizes.max()) if (self.kind != ABSENT).any() else 0,
            "largest_near": int(near.max()) + 1 if near.any() else 0,
            "candidate_pairs": self.compared,
            "joined_pairs": self.joined,
        }

    def largest_near(self, most: int, members: int) -> list[tuple[int, int, list[int]]]:
        """The largest clusters of near-duplicates: what stays, how many went for it, and the first of these."""
        near = np.flatnonzero(self.kind == NEAR)
        stays, counts = np.unique(self.survivor[near], return_counts=True)
        order = np.lexsort((stays, -counts))[:most]
        of_cluster = [near[self.survivor[near] == stay][:members].tolist() for stay in stays[order]]
        return list(zip(stays[order].tolist(), counts[order].tolist(), of_cluster, strict=True))

    @property
    def reasons(self) -> list[str | None]:
        return [REASONS[kind] for kind in self.kind.tolist()]


class DuplicateIndex:
    """All documents of a corpus: what orders them in memory, signatures and shingles in files of `folder`.

    In memory a document takes its id and 44 bytes; resolving adds 40. On disk it takes 4 bytes for every place of the
    signature and for every word.
    """

    def __init__(self, config: NearDuplicateConfig, folder: Path) -> None:
        self.config = config
        self._ranks: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._ids: list[pl.Series] = []
        self._hashes: list[np.ndarray] = []
        self._present: list[np.ndarray] = []
        self._documents = 0
        self._signed = _SignatureFiles(folder, config.bands * config.rows)

    def __len__(self) -> int:
        return self._documents

    def add(
        self,
        domain_rank: int,
        ids: Sequence[str] | pa.Array | pa.ChunkedArray,
        hashes: np.ndarray,
        signatures: Signatures | None = None,
        scores: np.ndarray | None = None,
        present: np.ndarray | None = None,
    ) -> int:
        """Adds a batch; returns the number of its first document, the others follow.

        Args:
            domain_rank: place of the domain in the recipe; of two duplicates that of the smaller rank stays.
            ids: unique within the domain.
            hashes: uint64[n] of `content_hashes`.
            signatures: of `minhash`, n of them; None takes the batch out of the near-duplicate check.
            scores: of two duplicates in one domain that of the higher score stays, of equals that of the smaller id;
                float64[n], 0 where None.
            present: those that are compared at all (bool[n], all where None); the others have a number and no more.
        """
        first, n = self._documents, len(hashes)
        present = np.ones(n, bool) if present is None else present
        if signatures is not None and n:
            self._signed.add(signatures, first, present)
        self._present.append(present)
        self._ranks.append(np.full(n, domain_rank, np.int32))
        self._scores.append(np.zeros(n) if scores is None else np.asarray(scores, np.float64))
        self._ids.append(pl.Series(ids, dtype=pl.String))
        self._hashes.append(np.asarray(hashes, np.uint64))
        self._documents += n
        return first

    def resolve(self) -> Duplicates:
        """Finds all duplicates among the documents added. Takes time proportional to n log n."""
        if not self._documents:
            return Duplicates(np.zeros(0, np.uint8), np.zeros(0, np.int64))
        hashes, present = np.concatenate(self._hashes), np.concatenate(self._present)
        order = self._precedence(hashes)
        order = order[present[order]]
        kind = np.where(present, KEPT, ABSENT).astype(np.uint8)
        survivor = np.arange(len(kind))

        firsts = _first_of_equals(hashes[order])
        exact = firsts != np.arange(len(order))
        kind[order[exact]] = EXACT
        survivor[order] = order[firsts]

        compared, joined = self._mark_near(order, kind, survivor)
        # What an exact duplicate was a copy of may itself have gone as a near-duplicate.
        return Duplicates(kind, survivor[survivor], compared, joined)

    def _precedence(self, hashes: np.ndarray) -> np.ndarray:
        """All documents, those that stay before those that go."""
        columns = {
            "rank": np.concatenate(self._ranks),
            "worse": -np.concatenate(self._scores),
            "id": pl.concat(self._ids),
            "hash": hashes,
        }
        order = pl.DataFrame(columns).select(pl.arg_sort_by("rank", "worse", "id", "hash", maintain_order=True))
        return order.to_series().to_numpy().astype(np.int64)

    def _mark_near(self, order: np.ndarray, kind: np.ndarray, survivor: np.ndarray) -> tuple[int, int]:
        """Marks near-duplicates; returns the pairs compared by their shingles, and those joined."""
        signed = self._signed.open()
        documents = signed.documents
        if not len(documents):
            return 0, 0
        row_of = np.full(len(kind), -1, np.int64)
        row_of[documents] = np.arange(len(documents))
        rank = np.empty(len(kind), np.int64)
        rank[order] = np.arange(len(order))
        ranks = rank[documents]
        # Rows of the signatures, those that stay first; exact duplicates have gone already.
        rows = row_of[order[kind[order] != EXACT]]
        rows = rows[rows >= 0]

        config = self.config
        places = config.bands * config.rows
        # Three standard errors below the threshold: few pairs worth a look are passed over.
        error = np.sqrt(config.threshold * (1 - config.threshold) / places)
        agreement = max(1, int(np.ceil((config.threshold - 3 * error) * places)))
        largest = int(np.diff(signed.offsets).max(initial=1))
        scratch_size = 1 << int(4 * largest - 1).bit_length()
        scratch, stamps, stamp = np.empty(scratch_size, np.uint32), np.zeros(scratch_size, np.int64), 1
        leaders = np.empty(_MOST_LEADERS, np.int64)
        parents = np.arange(len(documents))
        keys = np.empty(len(documents), np.uint64)
        compared = joined = 0
        for band in range(config.bands):
            sequences.band_keys(signed.values, band * config.rows, config.rows, keys)
            for alike in _runs(rows[recurring(keys[rows])], keys):
                pairs, similar, stamp = sequences.join_similar(
                    keys, alike, ranks, signed.values, agreement, signed.shingles, signed.offsets,
                    config.threshold - 1e-9, scratch, stamps, stamp, leaders, parents,
                )  # fmt: skip
                compared, joined = compared + pairs, joined + similar
                signed.release()
            sequences.find_roots(parents)
        near = parents != np.arange(len(documents))
        kind[documents[near]] = NEAR
        survivor[documents[near]] = documents[parents[near]]
        return compared, joined


@dataclass(frozen=True)
class _Signed:
    """The documents with a signature, by row: their numbers (int64[n]), signatures uint32 (n, places), and shingles."""

    documents: np.ndarray
    values: np.ndarray
    shingles: np.ndarray
    offsets: np.ndarray
    """int64[n + 1]"""
    maps: list[mmap.mmap]

    def release(self) -> None:
        """Gives the pages read so far back to the system, which would otherwise count them as ours."""
        for mapped in self.maps:
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)


class _SignatureFiles:
    """Signatures and shingles of many documents, appended to two files and read back memory-mapped."""

    def __init__(self, folder: Path, places: int) -> None:
        self._paths = folder / "signatures.bin", folder / "shingles.bin"
        self._places = places
        self._documents: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        for path in self._paths:
            path.write_bytes(b"")

    def add(self, signatures: Signatures, first: int, present: np.ndarray) -> None:
        """Appends those of a batch that are present, bool[n]; `first` is the number of its first document."""
        # A document without words has no shingles; all such would be alike.
        lengths = np.diff(signatures.offsets)
        signed = np.flatnonzero(present & (lengths > 0))
        self._documents.append(first + signed)
        self._lengths.append(lengths[signed])
        shingles = signatures.shingles if present.all() else signatures.shingles[np.repeat(present, lengths)]
        for path, values in zip(self._paths, (signatures.values[signed], shingles), strict=True):
            with path.open("ab") as file:
                file.write(values.data)

    def open(self) -> _Signed:
        """All that was added."""
        documents = np.concatenate([np.zeros(0, np.int64), *self._documents])
        offsets = np.concatenate([[0], *self._lengths]).cumsum().astype(np.int64)
        if not len(documents):
            return _Signed(documents, np.zeros((0, self._places), np.uint32), np.zeros(0, np.uint32), offsets, [])
        maps = []
        for path in self._paths:
            with path.open("rb") as file:
                maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        values, shingles = (np.frombuffer(mapped, np.uint32) for mapped in maps)
        return _Signed(documents, values.reshape(-1, self._places), shingles, offsets, maps)


def _runs(alike: np.ndarray, keys: np.ndarray) -> Iterator[np.ndarray]:
    """Rows that share their keys with others, by key, in parts that split no run of equal keys."""
    ordered = keys[alike]
    begins = np.flatnonzero(np.insert(ordered[1:] != ordered[:-1], 0, True))
    start = 0
    while start < len(alike):
        place = int(np.searchsorted(begins, start + _MOST_AT_ONCE))
        end = int(begins[place]) if place < len(begins) else len(alike)
        yield alike[start:end]
        start = end


def _first_of_equals(values: np.ndarray) -> np.ndarray:
    """For every position that of the first equal value (uint64)."""
    firsts = np.arange(len(values))
    equal = recurring(values)
    begins = np.flatnonzero(np.insert(values[equal][1:] != values[equal][:-1], 0, True))[: len(equal)]
    firsts[equal] = np.repeat(equal[begins], np.diff(begins, append=len(equal)))
    return firsts
