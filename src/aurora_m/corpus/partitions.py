"""The first reading of one part of a domain: from files of a source to a folder that the second reading goes on with.

A partition is the unit of resuming and of spreading over machines. Its folder appears whole or not at all.
"""

import os
import pickle
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from ..workspace import AuroraError, fingerprint
from .array_files import ArrayFile, open_array
from .decontaminate import Overlap
from .dedup import DuplicateIndex, Signatures
from .documents import byte_lengths
from .engine import OrderedMap, Tell
from .funnel import DroppedSample, Funnel
from .listing import file_stamp
from .records import Parsed
from .repeatable import Repeatable, RepeatableWriter, open_repeatable
from .screening import Screen, Screened
from .sources import Source

_UNFINISHED = ".incomplete-"
_SIGNATURES, _SHINGLES = "signatures.bin", "shingles.bin"
_MOST_HINTS = 3


@dataclass(frozen=True)
class PartitionWork:
    """What one worker is given: files of a source, the passes, and the folder the result goes to."""

    source: Source
    screen: Screen
    folder: Path

    @property
    def size(self) -> int:
        """Bytes of the files, compressed as they are."""
        return self.source.size


def partition_work(sources: list[Source], screen: Screen, folder: Path, key: Any) -> list[PartitionWork]:
    """A domain's sources as partitions, in the order of reading.

    Their folders are named by what goes into them: `key` (JSON-able) stands for all but the files.
    """
    size = screen.config.partition_bytes
    work = []
    for number, source in enumerate(sources):
        for part in source.split(size):
            files = [file_stamp(file) for file in part.files]
            name = fingerprint([key, number, source.config.model_dump(mode="json"), files])[:24]
            work.append(PartitionWork(part, screen, folder / name))
    return work


def screen_partition(work: PartitionWork, in_order: OrderedMap, tell: Tell) -> None:
    """Takes a partition through all passes that look at one document by itself; leaves its folder.

    What a killed worker left beside the folder is not touched: another may be at it.

    Raises:
        DataError: a file is damaged.
    """
    if work.folder.exists():
        tell(work.size, 0)
        return
    work.folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{work.folder.name}{_UNFINISHED}", dir=work.folder.parent))
    try:
        reading = _Reading(work.source)
        with _Writer(unfinished, work.screen.config.dropped_sample) as writer:
            for parts in in_order(lambda batch: screen_or_quarantine(work.screen, batch), reading.pieces(in_order)):
                for screened in parts:
                    writer.add(screened)
                    tell(reading.newly_read(), screened.documents.num_rows)
            writer.note(reading)
        # Two workers may do the same when one was taken for dead: what they made is equal.
        if work.folder.exists():
            return
        unfinished.rename(work.folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def screen_or_quarantine(screen: Screen, documents: pa.RecordBatch) -> list[Screened]:
    """The passes over a batch. A document at which one of them breaks is dropped, as `failed:<error>`, by itself."""
    try:
        return [screen(documents)]
    except (AuroraError, MemoryError):
        raise
    except Exception as error:  # a defect of ours, which must not cost the other documents
        if documents.num_rows == 1:
            return [screen.quarantine(documents, f"failed:{type(error).__name__}")]
        half = documents.num_rows // 2
        halves = documents.slice(0, half), documents.slice(half)
        return [screened for part in halves for screened in screen_or_quarantine(screen, part)]


@dataclass
class _Reading:
    """Draws the documents of a partition and keeps account of what gave none."""

    source: Source
    funnel: Funnel = field(default_factory=Funnel)
    read_bytes: int = 0
    told_bytes: int = 0
    hints: list[str] = field(default_factory=list)

    def pieces(self, in_order: OrderedMap) -> Iterator[pa.RecordBatch]:
        """Batches of documents."""
        for parsed in self.source.read(in_order):
            self._account(parsed)
            if parsed.documents.num_rows:
                yield parsed.documents

    def newly_read(self) -> int:
        """Bytes of input read since the last time."""
        told, self.told_bytes = self.told_bytes, self.read_bytes
        return self.read_bytes - told

    def _account(self, parsed: Parsed) -> None:
        self.read_bytes += parsed.read_bytes
        count = self.funnel.passes["read"]
        count.seconds += parsed.seconds
        for reason, (records, size) in parsed.rejected.items():
            count.drop(reason, records, size)
            count.documents_in += records
            count.bytes_in += size
        if parsed.hint and len(self.hints) < _MOST_HINTS:
            self.hints.append(f"{self.source.form.name}: {parsed.hint}")


@dataclass
class PartitionRecord:
    """What is known of a finished partition beside its files."""

    funnel: Funnel
    dropped: DroppedSample
    hints: list[str]
    batch_ends: list[int]
    """Documents up to the end of every batch."""
    lengths: np.ndarray
    """UTF-8 bytes of every text left, int64[documents]."""
    hashes: np.ndarray
    """Content hashes of every text left, uint64[documents]."""
    overlaps: list[tuple[int, str, Overlap]]
    """Documents with evaluation texts: the row, the source, and what they share."""
    shingle_counts: np.ndarray | None
    """Shingles of every document left, int64[documents]; None where near-duplicates are not looked for."""
    repeat_counts: dict[str, np.ndarray]
    """As `open_repeatable` needs them; empty where repeated text is not looked for."""

    @property
    def documents(self) -> int:
        return len(self.lengths)


class Partition:
    """A finished partition: the documents left, with their scores and signatures. No threshold was laid on them yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with (folder / "record.pickle").open("rb") as file:
            self.record: PartitionRecord = pickle.load(file)

    @property
    def documents(self) -> int:
        """How many are left."""
        return self.record.documents

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All documents, in batches as they came; only the columns named, where some are."""
        if not self.documents:
            return
        with self._open(columns) as reader:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)

    def value_of(self, row: int, column: str) -> str:
        """What a document, by its place, has in a column of text."""
        ends = self.record.batch_ends
        batch = int(np.searchsorted(ends, row, side="right"))
        with self._open([column]) as reader:
            return reader.get_batch(batch).column(0)[row - (ends[batch - 1] if batch else 0)].as_py()

    def take(self, rows: np.ndarray) -> Iterator[pa.RecordBatch]:
        """Some of the documents, by their places (int64, ascending), in batches."""
        if not len(rows):
            return
        ends = self.record.batch_ends
        batch_of = np.searchsorted(ends, rows, side="right")
        with self._open(None) as reader:
            for batch in np.unique(batch_of).tolist():
                inside = rows[batch_of == batch] - (ends[batch - 1] if batch else 0)
                yield reader.get_batch(batch).take(pa.array(inside))

    def add_to(self, index: DuplicateIndex, domain_rank: int, keep: np.ndarray) -> None:
        """Puts ids, hashes, lengths and signatures into the index of duplicates; those not in `keep` have no part."""
        start = 0
        for batch, signatures in self.signed_batches(index.config.bands * index.config.rows):
            # Of near-duplicates the longest is the most complete.
            rows = slice(start, start + batch.num_rows)
            start += batch.num_rows
            lengths, hashes = self.record.lengths[rows], self.record.hashes[rows]
            index.add(domain_rank, batch.column("id"), hashes, signatures, lengths, keep[rows])

    def signed_batches(self, places: int) -> Iterator[tuple[pa.RecordBatch, Signatures | None]]:
        """`id` and `content_hash` of all documents in batches, with their signatures where they have such."""
        signatures = self._signatures(places)
        start = 0
        for batch in self.batches(["id", "content_hash"]):
            end = start + batch.num_rows
            yield batch, None if signatures is None else signatures.part(start, end)
            start = end

    def repeatable(self) -> Repeatable | None:
        """What the repeats of all documents are found by, mapped from the files; None where they are not compared."""
        return open_repeatable(self.folder, self.record.repeat_counts)

    def _signatures(self, places: int) -> Signatures | None:
        """Of all documents, mapped from the files; None where there are none."""
        if self.record.shingle_counts is None:
            return None
        offsets = np.concatenate([[0], self.record.shingle_counts]).cumsum().astype(np.int64)
        values = open_array(self.folder / _SIGNATURES, np.uint32, places)
        return Signatures(values, open_array(self.folder / _SHINGLES, np.uint32), offsets)

    @contextmanager
    def _open(self, columns: Sequence[str] | None) -> Iterator[pa.ipc.RecordBatchFileReader]:
        with pa.OSFile(str(self.folder / "documents.arrow")) as file:
            schema = pa.ipc.open_file(file).schema
            wanted = None if columns is None else [schema.get_field_index(name) for name in columns]
            yield pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False))


class _Writer:
    """Writes a partition's folder, batch by batch."""

    def __init__(self, folder: Path, dropped_sample: int) -> None:
        self.folder = folder
        self.funnel, self.dropped, self.hints = Funnel(), DroppedSample(dropped_sample), []
        self._lengths: list[np.ndarray] = []
        self._hashes: list[np.ndarray] = []
        self._overlaps: list[tuple[int, str, Overlap]] = []
        self._shingle_counts: list[np.ndarray] = []
        self._documents: pa.ipc.RecordBatchFileWriter | None = None
        self._signatures, self._shingles = (ArrayFile(folder / name, np.uint32) for name in (_SIGNATURES, _SHINGLES))
        self._repeatable = RepeatableWriter(folder)

    def add(self, screened: Screened) -> None:
        """Takes over a batch; in the order of reading."""
        self.funnel.add(screened.funnel)
        self.dropped.merge(screened.dropped)
        documents = screened.documents
        if not documents.num_rows:
            return
        if self._documents is None:
            options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
            self._documents = pa.ipc.new_file(str(self.folder / "documents.arrow"), documents.schema, options=options)
        self._documents.write_batch(documents)  # pyright: ignore[reportOptionalMemberAccess]
        first, sources = sum(map(len, self._lengths)), documents.column("source")
        self._overlaps += [(first + one.row, sources[one.row].as_py(), one) for one in screened.overlaps]
        self._lengths.append(byte_lengths(documents.column("text")))
        self._hashes.append(documents.column("content_hash").to_numpy())
        if screened.signatures is not None:
            self._shingle_counts.append(np.diff(screened.signatures.offsets))
            self._signatures.append(screened.signatures.values)
            self._shingles.append(screened.signatures.shingles)
        if screened.repeatable is not None:
            self._repeatable.add(screened.repeatable)

    def note(self, reading: _Reading) -> None:
        """Takes over the account of the reading, at its end."""
        self.funnel.add(reading.funnel)
        self.hints = reading.hints

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._documents is not None:
            self._documents.close()
        if error is not None:
            return
        lengths = np.concatenate([np.zeros(0, np.int64), *self._lengths])
        hashes = np.concatenate([np.zeros(0, np.uint64), *self._hashes])
        ends = np.cumsum([len(one) for one in self._lengths]).tolist()
        counts = np.concatenate(self._shingle_counts) if self._shingle_counts else None
        repeat_counts = self._repeatable.counts()
        record = PartitionRecord(
            self.funnel, self.dropped, self.hints, ends, lengths, hashes, self._overlaps, counts, repeat_counts
        )
        with (self.folder / "record.pickle").open("wb") as file:
            pickle.dump(record, file)
            file.flush()
            os.fsync(file.fileno())


def remove_others(folder: Path, wanted: Iterable[Path]) -> None:
    """Takes away the partitions below `<folder>/<domain>` that are not wanted, and what killed workers left.

    Only while no worker is at it.
    """
    kept = set(wanted)
    for path in folder.glob("*/*"):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
