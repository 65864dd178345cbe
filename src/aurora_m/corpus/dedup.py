"""Exact duplicates by content hash, near-duplicates by MinHash and banding (Broder 1997; Leskovec et al., ch. 3).

Two documents are joined when they share a band of their signatures and the whole signatures agree in at least
`threshold` of their places; joined documents form clusters, and of every cluster exactly one stays: that of the
earliest domain, then of the smallest id. Nothing depends on the order in which documents were added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl
import pyarrow as pa

from . import kernels, sequences
from .config import NearDuplicateConfig
from .segments import Segments, text_buffers
from .unicode_tables import unicode_tables

KEPT, EXACT, NEAR = 0, 1, 2
REASONS = (None, "exact_duplicate", "near_duplicate")
_NO_WORDS = np.uint32(0xFFFFFFFF)
_MOST_LEADERS = 256


def content_hashes(texts: pa.LargeStringArray | pa.ChunkedArray) -> np.ndarray:
    """64-bit hashes (uint64[n]) of texts in lower case with white space folded: equal for exact duplicates."""
    data, offsets = text_buffers(texts)
    hashes = np.zeros(len(offsets) - 1, np.uint64)
    kernels.content_hash(data, offsets, *unicode_tables(), hashes)
    return hashes


def minhash(
    segments: Segments, config: NearDuplicateConfig, seed: int, documents: np.ndarray | None = None
) -> np.ndarray:
    """MinHash signatures of word n-grams, uint32 (n, bands * rows).

    Args:
        documents: numbers of the texts wanted (int64); all where None.
    """
    if documents is None:
        documents = np.arange(len(segments))
    multipliers, addends = _permutations(config.bands * config.rows, seed)
    out = np.empty((len(documents), len(multipliers)), np.uint32)
    wanted = np.ascontiguousarray(documents, np.int64)
    sequences.minhash(segments.word_offsets, segments.word_hash, wanted, config.ngram, multipliers, addends, out)
    return out


@lru_cache(maxsize=8)
def _permutations(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(seed))
    multipliers, addends = generator.integers(0, 1 << 32, (2, count), np.uint32)
    return multipliers | np.uint32(1), addends


@dataclass(frozen=True)
class Duplicates:
    """What is to become of every document, by its number in the order of adding."""

    kind: np.ndarray
    """uint8[n]: KEPT, EXACT or NEAR."""
    survivor: np.ndarray
    """int64[n]: the document that stays in its place; its own number where it stays itself."""

    @property
    def keep(self) -> np.ndarray:
        """bool[n]"""
        return self.kind == KEPT

    @property
    def reasons(self) -> list[str | None]:
        return [REASONS[kind] for kind in self.kind.tolist()]


class DuplicateIndex:
    """All documents of a corpus by hash and signature, in memory: 8 bytes, the id, and 4 per place of the signature."""

    def __init__(self, config: NearDuplicateConfig) -> None:
        self.config = config
        self._ranks: list[np.ndarray] = []
        self._ids: list[pl.Series] = []
        self._hashes: list[np.ndarray] = []
        self._signatures: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._documents = 0
        self._signed = 0

    def __len__(self) -> int:
        return self._documents

    def add(
        self,
        domain_rank: int,
        ids: Sequence[str] | pa.Array | pa.ChunkedArray,
        hashes: np.ndarray,
        signatures: np.ndarray | None = None,
    ) -> int:
        """Adds a batch; returns the number of its first document, the others follow.

        Args:
            domain_rank: place of the domain in the recipe; of two duplicates that of the smaller rank stays.
            ids: unique within the domain.
            hashes: uint64[n] of `content_hashes`.
            signatures: uint32 (n, bands * rows) of `minhash`; None takes the batch out of the near-duplicate check.
        """
        first, n = self._documents, len(hashes)
        rows = np.full(n, -1, np.int64)
        if signatures is not None:
            # A document without words has no shingles; all such would be alike.
            signed = np.flatnonzero(signatures[:, 0] != _NO_WORDS) if n else np.zeros(0, np.int64)
            rows[signed] = self._signed + np.arange(len(signed))
            self._signatures.append(signatures[signed])
            self._signed += len(signed)
        self._ranks.append(np.full(n, domain_rank, np.int32))
        self._ids.append(pl.Series(ids, dtype=pl.String))
        self._hashes.append(np.asarray(hashes, np.uint64))
        self._rows.append(rows)
        self._documents += n
        return first

    def resolve(self) -> Duplicates:
        """Finds all duplicates among the documents added. Takes time proportional to n log n."""
        if not self._documents:
            return Duplicates(np.zeros(0, np.uint8), np.zeros(0, np.int64))
        hashes = np.concatenate(self._hashes)
        order = self._precedence(hashes)
        kind = np.zeros(len(order), np.uint8)
        survivor = np.arange(len(order))

        firsts = _first_of_equals(hashes[order])
        exact = firsts != np.arange(len(order))
        kind[order[exact]] = EXACT
        survivor[order] = order[firsts]

        self._mark_near(order[~exact], kind, survivor)
        # What an exact duplicate was a copy of may itself have gone as a near-duplicate.
        return Duplicates(kind, survivor[survivor])

    def _precedence(self, hashes: np.ndarray) -> np.ndarray:
        """All documents, those that stay before those that go."""
        columns = {"rank": np.concatenate(self._ranks), "id": pl.concat(self._ids), "hash": hashes}
        order = pl.DataFrame(columns).select(pl.arg_sort_by("rank", "id", "hash", maintain_order=True))
        return order.to_series().to_numpy().astype(np.int64)

    def _mark_near(self, documents: np.ndarray, kind: np.ndarray, survivor: np.ndarray) -> None:
        rows = np.concatenate(self._rows)[documents]
        documents, rows = documents[rows >= 0], rows[rows >= 0]
        if not len(documents):
            return
        signatures = np.concatenate(self._signatures)
        self._signatures = [signatures]
        config = self.config
        parents = np.arange(len(documents))
        keys = np.empty(len(documents), np.uint64)
        agreement = int(np.ceil(config.threshold * config.bands * config.rows - 1e-9))
        leaders = np.empty(_MOST_LEADERS, np.int64)
        for band in range(config.bands):
            sequences.band_keys(signatures, rows, band * config.rows, config.rows, keys)
            by_key = np.argsort(keys, kind="stable")
            sequences.join_similar(keys, by_key, signatures, rows, agreement, leaders, parents)
        near = parents != np.arange(len(documents))
        kind[documents[near]] = NEAR
        survivor[documents] = documents[parents]


def _first_of_equals(values: np.ndarray) -> np.ndarray:
    """For every position that of the first equal value."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]
