"""Curated documents, read back: which domains there are, their files, and some rows at a time."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from aurora_m.workspace import DataError

_ROWS = 64  # rows held at a time; documents may have 10 MB


def curated_domains(curated: Path) -> list[str]:
    """The domains with a folder of parquet files, sorted.

    Raises:
        DataError: there is none.
    """
    folders = sorted(folder.name for folder in curated.iterdir() if folder.is_dir()) if curated.is_dir() else []
    domains = [
        name for name in folders if curated_files(curated, name, "train") + curated_files(curated, name, "heldout")
    ]
    if not domains:
        raise DataError(f"{curated} holds no curated documents (<domain>/train-*.parquet); run the curate stage first")
    return domains


def curated_files(curated: Path, domain: str, split: str) -> list[Path]:
    """The files of a split ("train" or "heldout") in order."""
    return sorted((curated / domain).glob(f"{split}-*.parquet"))


def text_bytes(path: Path) -> int:
    """UTF-8 bytes of all texts in a file, within a few percent: from its footer, no text is read."""
    with _open(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        columns = [group.column(index) for group in groups for index in range(group.num_columns)]
        return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == "text")


def present_columns(path: Path, columns: list[str]) -> list[str]:
    """Those of the columns that a file has."""
    with _open(path) as file:
        return [column for column in columns if column in file.schema_arrow.names]


def read_rows(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The named columns, some rows at a time; memory is bounded by the file's row groups.

    Raises:
        DataError: the file is damaged, or lacks a column.
    """
    with _open(path) as file:
        missing = [column for column in columns if column not in file.schema_arrow.names]
        if missing:
            raise DataError(f"{path} has no column {missing}; it is no file of the curate stage, run that again")
        batches = file.iter_batches(_ROWS, columns=columns)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path} is damaged ({error}); run the curate stage again") from None
            if batch is None:
                return
            yield batch


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged or no parquet file ({error}); run the curate stage again") from None
