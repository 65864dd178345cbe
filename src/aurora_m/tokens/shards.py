"""Token shards: Megatron-LM's memory-mapped `.bin`/`.idx` pair, and beside it who the documents are.

`ShardWriter` streams documents out, `Shard` maps one pair, `DomainTokens` is all shards of a domain's split as one.

    train-00000.bin           tokens of all documents, one after another, each document ended by EOD
    train-00000.idx           b"MMIDIDX\\0\\0", uint64 version 1, uint8 dtype code (8 uint16, 4 int32),
                              uint64 sequences n, uint64 n + 1, int32[n] lengths in tokens, int64[n] byte offsets,
                              int64[n + 1] document boundaries (0..n: a document is one sequence); little-endian
    train-00000.docs.parquet  id, source, lang, bytes (UTF-8, of the text), tokens (with EOD); one row per document
    train-00000.weights.npy   float32[documents]: how often each is to be read an epoch; only where one is not 1

The layout is that of `megatron/core/datasets/indexed_dataset.py` in NVIDIA's Megatron-LM, which can train on the files.
"""

import struct
from array import array
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aurora_m.workspace import DataError, atomic_path

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_DTYPE_OF_CODE = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
_SHARD_TOKENS = 1_000_000_000
_DOCS_BUFFERED = 10_000
_STORED_DOCS_SCHEMA = pa.schema(
    {"id": pa.string(), "source": pa.string(), "lang": pa.string(), "bytes": pa.uint32(), "tokens": pa.uint32()}
)
DOCS_SCHEMA = _STORED_DOCS_SCHEMA.append(pa.field("weight", pa.float32()))


def dtype_code(vocab_size: int) -> int:
    """8 (uint16) below 65,500 ids, as Megatron-LM draws the line, else 4 (int32)."""
    return 8 if vocab_size < 65_500 else 4


def stored_dtype(vocab_size: int) -> np.dtype:
    """The dtype of stored ids."""
    return _DTYPE_OF_CODE[dtype_code(vocab_size)]


class ShardWriter:
    """Streams one split of a domain into `folder/<split>-00000.*`, ... Memory holds only one shard's document lengths.

    Use it as a context manager: a shard's files appear whole when it is full or the block ends well; after an
    exception none of this writer's files is left. A writer that got no document leaves no file.
    `documents`, `bytes` and `tokens` count what was written; `weighted` documents have another weight than 1, `unread`
    ones 0, and `tokens_per_epoch` is tokens times weights.
    """

    def __init__(self, folder: Path, split: str, vocab_size: int, shard_tokens: int = _SHARD_TOKENS) -> None:
        self.documents = self.bytes = self.tokens = self.weighted = self.unread = 0
        self.tokens_per_epoch = 0.0
        self._folder, self._split, self._shard_tokens = folder, split, shard_tokens
        self._code = dtype_code(vocab_size)
        self._open: _OpenShard | None = None
        self._stems: list[Path] = []

    def append(self, tokens: Sequence[int] | np.ndarray, *, id: str, source: str, lang: str | None, size: int) -> None:
        """Adds a document: its tokens, EOD last, and `size`, the UTF-8 bytes of its text."""
        data = np.asarray(tokens, dtype=_DTYPE_OF_CODE[self._code])
        columns = [[id], [source], [lang], [size], [len(data)]]
        self.extend(data, docs_table(columns))

    def extend(self, tokens: np.ndarray, docs: pa.Table) -> None:
        """Adds documents: their tokens one after another, EOD last in each, and their rows of docs.parquet."""
        data = np.asarray(tokens, dtype=_DTYPE_OF_CODE[self._code])
        lengths = docs["tokens"].to_numpy()
        ends = np.cumsum(lengths, dtype=np.int64)
        first, begin = 0, 0
        while first < len(lengths):
            room = self._shard_tokens - (self._open.tokens if self._open else 0)
            last = int(np.searchsorted(ends, begin + room, side="right"))
            if last == first and self._open:  # not one more fits
                self._open.finish()
                self._open = None
                continue
            last = max(last, first + 1)  # a document longer than a shard has one of its own
            if not self._open:
                self._stems.append(self._folder / f"{self._split}-{len(self._stems):05}")
                self._open = _OpenShard(self._stems[-1], self._code)
            end = int(ends[last - 1])
            self._open.extend(data[begin:end], lengths[first:last], docs.slice(first, last - first))
            first, begin = last, end
        self.documents += len(lengths)
        self.bytes += int(docs["bytes"].to_numpy().sum(dtype=np.int64))
        self.tokens += len(data)
        weights = docs["weight"].to_numpy()
        self.weighted += int((weights != 1).sum())
        self.unread += int((weights == 0).sum())
        self.tokens_per_epoch += float(weights.astype(np.float64) @ lengths)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        try:
            if self._open and kind is None:
                self._open.finish()
            elif self._open:
                self._open.abandon(kind, error, trace)
        except BaseException:
            self._remove()
            raise
        if kind:
            self._remove()

    def _remove(self) -> None:
        for stem in self._stems:
            for path in (*_paths(stem), _weights_path(stem)):
                path.unlink(missing_ok=True)


def docs_table(columns: Sequence[Any], weights: np.ndarray | None = None) -> pa.Table:
    """Rows of docs.parquet from five columns: id, source, lang, bytes, tokens, each an array or a list; and how often
    each document is to be read an epoch, float32, 1 where nothing is given."""
    columns = [*columns, np.ones(len(columns[0]), np.float32) if weights is None else weights]
    arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, DOCS_SCHEMA, strict=True)]
    return pa.table(arrays, schema=DOCS_SCHEMA)


class _OpenShard:
    """The shard being written. The index is renamed into place last, so an index always has its data."""

    def __init__(self, stem: Path, code: int) -> None:
        self.tokens = 0
        self._code, self._lengths, self._docs, self._docs_held = code, array("i"), [], 0
        self._weights, self._weights_path = array("f"), _weights_path(stem)
        self._stack = ExitStack()
        bin_path, self._idx_path, docs_path = _paths(stem)
        temporaries = [self._stack.enter_context(atomic_path(path)) for path in (self._idx_path, bin_path, docs_path)]
        self._idx_temporary = temporaries[0]
        self._bin = self._stack.enter_context(temporaries[1].open("wb", buffering=2**20))
        parquet = pq.ParquetWriter(temporaries[2], _STORED_DOCS_SCHEMA, compression="zstd")
        self._parquet = self._stack.enter_context(parquet)

    def extend(self, data: np.ndarray, lengths: np.ndarray, docs: pa.Table) -> None:
        self._bin.write(np.ascontiguousarray(data).data)
        self._lengths.frombytes(lengths.astype(np.int32).tobytes())
        self.tokens += len(data)
        self._weights.frombytes(docs["weight"].to_numpy().astype(np.float32).tobytes())
        self._docs.append(docs.select(_STORED_DOCS_SCHEMA.names))
        self._docs_held += len(docs)
        if self._docs_held >= _DOCS_BUFFERED:
            self._flush_docs()

    def _flush_docs(self, all_of_them: bool = False) -> None:
        """Writes row groups of _DOCS_BUFFERED documents, however they came in; with `all_of_them` the rest too."""
        docs = pa.concat_tables(self._docs).combine_chunks()
        whole = len(docs) if all_of_them else len(docs) // _DOCS_BUFFERED * _DOCS_BUFFERED
        for start in range(0, whole, _DOCS_BUFFERED):
            self._parquet.write_table(docs.slice(start, min(_DOCS_BUFFERED, whole - start)))
        self._docs, self._docs_held = [docs.slice(whole)], len(docs) - whole

    def finish(self) -> None:
        with self._stack:
            if self._docs_held:
                self._flush_docs(all_of_them=True)
            lengths = np.frombuffer(self._lengths, dtype=np.int32)
            count, itemsize = len(lengths), _DTYPE_OF_CODE[self._code].itemsize
            pointers = np.zeros(count, dtype="<i8")
            np.cumsum(lengths[:-1], dtype=np.int64, out=pointers[1:])
            with self._idx_temporary.open("wb") as file:
                file.write(_HEADER.pack(_MAGIC, 1, self._code, count, count + 1))
                for column in (lengths.astype("<i4"), pointers * itemsize, np.arange(count + 1, dtype="<i8")):
                    file.write(column.tobytes())
            self._write_weights()

    def _write_weights(self) -> None:
        weights = np.frombuffer(self._weights, np.float32)
        if (weights == 1).all():
            self._weights_path.unlink(missing_ok=True)
            return
        with atomic_path(self._weights_path) as temporary, temporary.open("wb") as file:
            np.save(file, weights, allow_pickle=False)

    def abandon(self, *exception) -> None:
        self._stack.__exit__(*exception)


def _paths(stem: Path) -> tuple[Path, Path, Path]:
    bin_path, idx_path, docs_path = (stem.with_name(stem.name + suffix) for suffix in (".bin", ".idx", ".docs.parquet"))
    return bin_path, idx_path, docs_path


def _weights_path(stem: Path) -> Path:
    return stem.with_name(stem.name + ".weights.npy")


class Shard:
    """One `.bin`/`.idx` pair, memory-mapped and read-only: nothing is loaded before it is used.

    Attributes: `tokens`, all of them, uint16 or int32; `lengths` int32[documents], tokens per document with EOD;
    `offsets` int64[documents], where a document begins, in bytes; `weights` float32[documents], None where all are 1.

    Raises:
        DataError: a file is missing, cut short, not of this layout, or its parts do not belong together.
    """

    def __init__(self, stem: Path) -> None:
        self.bin_path, self.idx_path, self.docs_path = _paths(stem)
        code, self.documents = self._read_header()
        index = np.memmap(self.idx_path, dtype=np.uint8, mode="r")
        self.lengths = np.frombuffer(index, "<i4", self.documents, _HEADER.size)
        self.offsets = np.frombuffer(index, "<i8", self.documents, _HEADER.size + 4 * self.documents)
        self._check_bin(_DTYPE_OF_CODE[code].itemsize)
        self.tokens = np.memmap(self.bin_path, dtype=_DTYPE_OF_CODE[code], mode="r")
        self.weights = self._read_weights(_weights_path(stem))

    def document(self, index: int) -> np.ndarray:
        """The tokens of a document, EOD last; a view into the file."""
        start = int(self.offsets[index]) // self.tokens.itemsize
        return self.tokens[start : start + int(self.lengths[index])]

    def _read_header(self) -> tuple[int, int]:
        """(dtype code, documents), after checking that the index is whole."""
        for path in (self.bin_path, self.idx_path, self.docs_path):
            if not path.is_file():
                raise DataError(f"{path} is missing; run the tokenize stage again")
        with self.idx_path.open("rb") as file:
            header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise DataError(f"{self.idx_path} is cut short: {len(header)} bytes; run the tokenize stage again")
        magic, version, code, documents, boundaries = _HEADER.unpack(header)
        if magic != _MAGIC or version != 1:
            raise DataError(
                f"{self.idx_path} is no token index: it begins {magic!r} version {version}, not {_MAGIC!r} 1"
            )
        if code not in _DTYPE_OF_CODE:
            raise DataError(f"{self.idx_path} has dtype code {code}; expected 4 (int32) or 8 (uint16)")
        if boundaries != documents + 1 or not documents:
            raise DataError(
                f"{self.idx_path} has {documents} sequences in {boundaries - 1} documents; expected one or more "
                "documents of one sequence each, as the tokenize stage writes them"
            )
        _check_size(self.idx_path, _HEADER.size + 4 * documents + 8 * documents + 8 * boundaries)
        return code, documents

    def _read_weights(self, path: Path) -> np.ndarray | None:
        if not path.exists():
            return None
        try:
            weights = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}); run the tokenize stage again") from None
        if weights.shape != (self.documents,) or weights.dtype != np.float32 or not weights.min() >= 0:
            raise DataError(f"{path} does not hold a weight for each of {self.documents} documents; tokenize again")
        return weights

    def _check_bin(self, itemsize: int) -> None:
        _check_size(self.bin_path, int(self.lengths.sum(dtype=np.int64)) * itemsize)
        last = int(self.offsets[-1]) + int(self.lengths[-1]) * itemsize
        if self.lengths.min() < 1 or self.offsets[0] != 0 or last != self.bin_path.stat().st_size:
            raise DataError(f"{self.idx_path} is damaged: its documents do not fill {self.bin_path}; tokenize again")


def _check_size(path: Path, expected: int) -> None:
    size = path.stat().st_size
    if size != expected:
        trouble = "cut short" if size < expected else "too long"
        raise DataError(f"{path} is {trouble}: {size} bytes, expected {expected}; run the tokenize stage again")


class DomainTokens:
    """All shards of one split of a domain, `tokens/<domain>/<split>-*`, as one list of documents.

    Attributes: `documents` and `tokens` (with EOD), counts; `weights`, float32[documents], None where all are 1, and
    `tokens_per_epoch`, tokens times weights; `domain`, `split`, `folder`.

    Raises:
        DataError: there are no shards, a shard is damaged, or one is missing in the middle.
    """

    absent: np.ndarray | None = None  # all are there

    def __init__(self, tokens: Path, domain: str, split: str = "train") -> None:
        self.domain, self.split, self.folder = domain, split, tokens / domain
        found = sorted(self.folder.glob(f"{split}-*.idx"))
        if not found:
            raise DataError(
                f"domain '{domain}' has no {split} documents: {self.folder} holds no {split}-*.idx; "
                "tokenize it, or leave the domain out"
            )
        # Names, not just a count: a lost shard in the middle must not go unnoticed.
        self.shards = [Shard(self.folder / f"{split}-{number:05}") for number in range(len(found))]
        self._first = np.cumsum([0, *(shard.documents for shard in self.shards)])
        self.documents = int(self._first[-1])
        self.tokens = sum(len(shard.tokens) for shard in self.shards)
        self.weights = self._join_weights()
        self.tokens_per_epoch = float(
            self.tokens if self.weights is None else self.weights.astype(np.float64) @ self.lengths
        )

    def _join_weights(self) -> np.ndarray | None:
        if all(shard.weights is None for shard in self.shards):
            return None
        ones = (np.ones(shard.documents, np.float32) for shard in self.shards)
        return np.concatenate(
            [one if shard.weights is None else shard.weights for shard, one in zip(self.shards, ones, strict=True)]
        )

    def document(self, index: int) -> np.ndarray:
        """The tokens of a document, uint16 or int32, EOD last; a view into the file."""
        shard = int(np.searchsorted(self._first, index, side="right")) - 1 if len(self.shards) > 1 else 0
        return self.shards[shard].document(index - int(self._first[shard]))

    def ids(self, numbers: Iterable[int]) -> list[str]:
        """The ids of some documents, in the order of their numbers (ascending).

        Raises:
            DataError: a docs.parquet is damaged.
        """
        wanted, found = np.fromiter(numbers, np.int64), []
        for shard, first in zip(self.shards, self._first.tolist(), strict=False):
            rows = wanted[(wanted >= first) & (wanted < first + shard.documents)] - first
            if len(rows):
                found += _read_docs(shard, ["id"])["id"].take(pa.array(rows)).to_pylist()
        return found

    @cached_property
    def lengths(self) -> np.ndarray:
        """int32[documents]: tokens per document, with EOD."""
        if len(self.shards) == 1:
            return self.shards[0].lengths
        return np.concatenate([shard.lengths for shard in self.shards])

    @cached_property
    def bytes(self) -> np.ndarray:
        """uint32[documents]: UTF-8 bytes of each document's text.

        Raises:
            DataError: a docs.parquet is damaged, or has other documents than its shard.
        """
        return np.concatenate([_read_bytes(shard) for shard in self.shards])


def _read_docs(shard: Shard, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(shard.docs_path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shard.docs_path} cannot be read ({error}); run the tokenize stage again") from None


def _read_bytes(shard: Shard) -> np.ndarray:
    table = _read_docs(shard, ["bytes", "tokens"])
    if not np.array_equal(table["tokens"].to_numpy(), shard.lengths):
        raise DataError(f"{shard.docs_path} lists other documents than {shard.idx_path}; run the tokenize stage again")
    return table["bytes"].to_numpy()
