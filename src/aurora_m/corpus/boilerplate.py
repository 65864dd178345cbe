"""Headers and footers: lines that stand at the edge of many documents of a source are learned and removed.

Learned from a first look at the beginning of a source, of bounded size, so that memory is bounded and the result does
not depend on threads. A line counts without the white space around it; only lines with a letter, among the first or
last few that are not blank, after the YAML header and outside fenced code, are ever learned or removed, and neither
headings nor the beginnings of quotes: these belong to what follows them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from ..workspace import kernel
from . import kernels
from .config import BoilerplateConfig
from .documents import byte_lengths, text_bytes, with_column
from .engine import OrderedMap
from .hashing import fold
from .normalise import normalise_pass
from .segments import text_buffers
from .sources import Source
from .unicode_tables import unicode_tables

_SHOWN_CHARACTERS = 200
_SHOWN_LINES = 50


@kernel
def line_keys(rows, line_hash, source_hash, out):
    """The keys of the first len(out) lines, of their hashes and those of their rows' sources."""
    for line in range(len(out)):
        out[line] = fold(source_hash[rows[line]], line_hash[line])


@dataclass
class Removed:
    """What was removed from the documents of a domain, or of one batch of it."""

    documents: int = 0
    bytes: int = 0
    lines: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(source, line) -> how often."""

    def add(self, other: "Removed") -> None:
        """Adds the counts of another batch."""
        self.documents += other.documents
        self.bytes += other.bytes
        self.lines.update(other.lines)

    def describe(self) -> dict[str, Any]:
        """The part `boilerplate` of a domain in curation.json, the most frequent lines by source."""
        top = sorted(self.lines.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN_LINES]
        return {
            "documents": self.documents,
            "lines": self.lines.total(),
            "bytes": self.bytes,
            "top": [{"source": source, "line": line, "removed": count} for (source, line), count in top],
        }


@dataclass(frozen=True)
class _Edges:
    """The lines at the edges of the texts of a batch: rows of their texts, where they are in them, and their keys."""

    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    keys: np.ndarray

    @classmethod
    def of(cls, documents: pa.RecordBatch, edge_lines: int) -> "_Edges":
        data, offsets = text_buffers(documents.column("text"))
        tables = unicode_tables()
        longest = int(np.diff(offsets).max(initial=0)) // 2 + 1
        most = min((int(offsets[-1] - offsets[0]) + len(offsets)) // 2 + 1, 2 * edge_lines * len(documents))
        scratch = np.empty(longest, np.int64), np.empty(longest, np.int64), np.empty(longest, np.bool_)
        rows, starts, ends, hashes = (np.empty(most, kind) for kind in (np.int64, np.int32, np.int32, np.uint64))
        found = kernels.find_edge_lines(
            data, offsets, tables.block_of, tables.classes, edge_lines, *scratch, rows, starts, ends, hashes
        )
        keys = np.empty(found, np.uint64)
        line_keys(rows, hashes, _source_hashes(documents), keys)
        return cls(rows[:found], starts[:found], ends[:found], keys)


class Boilerplate:
    """The lines to remove from the documents of a domain. Read by many threads at once."""

    def __init__(self, lines: dict[int, tuple[str, str]], edge_lines: int) -> None:
        self.edge_lines = edge_lines
        self._lines = lines
        self._keys = np.array(sorted(lines), np.uint64)

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def keys(self) -> list[int]:
        """What is removed, as hashes of source and line."""
        return self._keys.tolist()

    def show_lines_as(self, change: Callable[[pa.LargeStringArray], pa.LargeStringArray]) -> None:
        """Changes how the lines are written in the counts; which are removed stays the same."""
        shown = change(pa.array([line for _, line in self._lines.values()], pa.large_string())).to_pylist()
        pairs = zip(self._lines.items(), shown, strict=True)
        self._lines = {key: (source, line) for (key, (source, _)), line in pairs}

    def remove(self, documents: pa.RecordBatch) -> tuple[pa.RecordBatch, Removed]:
        """The documents without these lines, and what was removed; a text may be left empty."""
        edges = _Edges.of(documents, self.edge_lines)
        gone = np.isin(edges.keys, self._keys)
        if not gone.any():
            return documents, Removed()
        data, offsets = text_buffers(documents.column("text"))
        left, left_offsets = np.empty(int(offsets[-1] - offsets[0]), np.uint8), np.zeros(len(offsets), np.int64)
        kernels.copy_without_lines(data, offsets, edges.rows[gone], edges.starts[gone], left, left_offsets)
        texts = pa.LargeStringArray.from_buffers(
            len(documents), pa.py_buffer(left_offsets), pa.py_buffer(left[: left_offsets[-1]])
        )
        changed = with_column(documents, "text", texts)
        keys, counts = np.unique(edges.keys[gone], return_counts=True)
        removed = Removed(len(np.unique(edges.rows[gone])), text_bytes(documents) - text_bytes(changed))
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            removed.lines[self._lines[key]] += count
        return changed, removed


def learn_boilerplate(sources: Iterable[Source], config: BoilerplateConfig, in_order: OrderedMap) -> Boilerplate:
    """The lines at the edges of more than `max_share` of the documents of a source.

    What counts as a source is what the documents themselves say. Holds one source's sample in memory at a time.

    Raises:
        DataError: a source is damaged.
    """
    lines: dict[int, tuple[str, str]] = {}
    for source in sources:
        sample = [_normal(documents) for documents in _sampled(source, config, in_order)]
        edges = list(in_order(lambda documents: _Edges.of(documents, config.edge_lines), sample))
        frequent = _frequent(sample, edges, config)
        for documents, one in zip(sample, edges, strict=True):
            _name_lines(documents, one, frequent, lines)
    return Boilerplate(lines, config.edge_lines)


def _sampled(source: Source, config: BoilerplateConfig, in_order: OrderedMap) -> Iterator[pa.RecordBatch]:
    """The first documents of a source, up to the sample's limits; where pieces begin makes no difference."""
    documents = size = 0
    for parsed in source.read(in_order):
        batch = parsed.documents
        sizes = byte_lengths(batch.column("text"))
        taken = int(np.searchsorted(size + np.cumsum(sizes) - sizes, config.sample_bytes))
        taken = min(taken, config.sample_documents - documents)
        if taken:
            yield batch.slice(0, taken)
        documents, size = documents + taken, size + int(sizes[:taken].sum())
        if taken < batch.num_rows or documents == config.sample_documents:
            return


def _normal(documents: pa.RecordBatch) -> pa.RecordBatch:
    return with_column(documents, "text", normalise_pass(documents.column("text"))[0])


def _frequent(sample: list[pa.RecordBatch], edges: list[_Edges], config: BoilerplateConfig) -> np.ndarray:
    """Keys of the lines that stand in enough documents, uint64, sorted."""
    documents: Counter[int] = Counter()
    of_source: dict[int, int] = {}  # key of a line -> hash of its source
    found: Counter[int] = Counter()
    for batch, one in zip(sample, edges, strict=True):
        sources = _source_hashes(batch)
        documents.update(sources.tolist())
        once = np.unique(np.stack([one.rows.astype(np.uint64), one.keys]), axis=1)  # a line twice in a text is once
        found.update(once[1].tolist())
        of_source.update(zip(once[1].tolist(), sources[once[0].astype(np.int64)].tolist(), strict=True))
    frequent = [
        key
        for key, count in found.items()
        if count >= config.min_documents and count > config.max_share * documents[of_source[key]]
    ]
    return np.array(sorted(frequent), np.uint64)


def _name_lines(
    documents: pa.RecordBatch, edges: _Edges, frequent: np.ndarray, lines: dict[int, tuple[str, str]]
) -> None:
    """Adds source and text of the frequent lines that stand in a batch, their beginnings where they are long."""
    for number in np.flatnonzero(np.isin(edges.keys, frequent)).tolist():
        key = int(edges.keys[number])
        if key in lines:
            continue
        row = int(edges.rows[number])
        text = documents.column("text")[row].as_py().encode()[edges.starts[number] : edges.ends[number]].decode()
        lines[key] = documents.column("source")[row].as_py(), text[:_SHOWN_CHARACTERS]


def _source_hashes(documents: pa.RecordBatch) -> np.ndarray:
    """A 64-bit hash of the source's name for every document, uint64[n]."""
    encoded = documents.column("source").dictionary_encode()
    names = encoded.dictionary.to_pylist()
    hashes = [int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") for name in names]
    return np.array(hashes, np.uint64)[encoded.indices.to_numpy()] if names else np.zeros(0, np.uint64)
