"""The Arrow schema of a document, and parquet files of documents."""

from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# What every document has. The passes add lang_score, quality.* and classifier.* (float32), content_hash (uint64),
# cluster_size (int32): how many documents, duplicates of it and itself, this one stands for, and upsampling_weight
# (float32): how often it should be read for that.
DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("license", pa.string()),
        pa.field("lang", pa.string()),
        pa.field("meta", pa.string(), nullable=False),  # a JSON object
    ]
)
# Columns of few values. In others a dictionary is tried and given up again, which takes a third of the time of writing.
_OF_FEW_VALUES = frozenset(["domain", "source", "license", "lang", "meta", "code_language"])
_ROW_GROUP_BYTES = 16_000_000
_FILE_BYTES = 512_000_000


def byte_lengths(texts: pa.Array) -> np.ndarray:
    """UTF-8 bytes of every text, int64[n]; -1 for null."""
    lengths = pc.binary_length(texts)  # pyright: ignore[reportAttributeAccessIssue]
    return lengths.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)


def text_bytes(documents: pa.RecordBatch) -> int:
    """UTF-8 bytes of all texts of a batch."""
    return int(byte_lengths(documents.column("text")).sum())


def with_column(documents: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    """The batch with one column replaced, or added at the end."""
    at = documents.schema.get_field_index(name)
    if at < 0:
        return documents.append_column(pa.field(name, values.type), values)
    return documents.set_column(at, documents.schema.field(at), values)


def filtered(documents: pa.RecordBatch, keep: np.ndarray) -> pa.RecordBatch:
    """The documents `keep` (bool[n]); the batch itself, not copied, where that is all."""
    return documents if keep.all() else documents.filter(pa.array(keep))


class DocumentWriter:
    """Writes batches of one schema to `<folder>/<split>-00000.parquet`, -00001, ... (zstd).

    What lies in a row group and in a file depends only on the batches, so equal input gives equal bytes. There is
    always a first file, if only an empty one.
    """

    def __init__(self, folder: Path, split: str, schema: pa.Schema) -> None:
        self.folder, self.split, self.schema = folder, split, schema
        self.documents = self.bytes = 0
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = self._file_bytes = self._files = 0
        self._writer: pq.ParquetWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Takes a batch; small ones are gathered to row groups of about 16 MB of text."""
        if not batch.num_rows:
            return
        size = text_bytes(batch)
        self.documents += batch.num_rows
        self.bytes += size
        self._held.append(batch)
        self._held_bytes += size
        if self._held_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            path = self.folder / f"{self.split}-{self._files:05}.parquet"
            few_values = [name for name in self.schema.names if name in _OF_FEW_VALUES]
            self._writer = pq.ParquetWriter(
                path,
                self.schema,
                compression="zstd",
                use_dictionary=few_values,  # pyright: ignore[reportArgumentType]
            )
            self._files += 1
        if self._held:
            self._writer.write_table(pa.Table.from_batches(self._held, self.schema))
        self._file_bytes += self._held_bytes
        self._held, self._held_bytes = [], 0
        if self._file_bytes >= _FILE_BYTES:
            self._writer.close()
            self._writer, self._file_bytes = None, 0

    def __enter__(self) -> "DocumentWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and (self._held or not self._files):
            self._flush()
        if self._writer is not None:
            self._writer.close()
